package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"carboy/image/registry"
	"carboy/netns"
	"carboy/runtime"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/version"
)

// Patient is the host that is looked at, as carboy is set up on it.
type Patient struct {
	runtime.Config
	Build      string
	PluginDirs []string // where CNI plugins may be
	Network    string   // the operator's own egress network, by its name
	NetworkErr error    // why that cannot be read
	Engine     string   // the proxy that runs by default
	ProxyImage string
	Packet     bool // prove the way out by a packet
	Logins     func() ([]registry.Source, error)

	files     fs.FS  // what the kernel shows
	daemon    daemon // nil where it does not answer
	daemonErr error  // why
	now       func() time.Time
	ask       func(context.Context, netip.Addr) error
}

// daemon is what is asked of containerd and of what runs on it.
type daemon interface {
	Version(context.Context) (string, error)
	Snapshotter(context.Context) error
	Namespaces(context.Context) ([]string, error)
	Root(context.Context) (string, error)
	Images(context.Context) ([]imageRecord, error)
	PATH() string // containerd's own; empty where it cannot be read
	Try(ctx context.Context, runtime string) error
	Runsc(context.Context) (path, note string, err error)
	Ask(ctx context.Context, plugins string, server netip.Addr) error // from a link as bottles have it
	Leftovers(context.Context) ([]runtime.Swept, error)
	Bottles(context.Context) ([]runtime.Status, error)
}

type imageRecord struct {
	Ref     string
	Updated time.Time
}

// Open connects to containerd, if it answers: if not, that is a finding. The
// caller closes the patient.
func (p *Patient) Open(ctx context.Context) {
	p.Build, p.files, p.now, p.ask = version.Build, os.DirFS("/"), time.Now, netns.Ask
	h, err := runtime.Open(ctx, p.Config)
	if err != nil {
		p.daemonErr = err
		return
	}
	p.daemon = live{h}
}

// Close ends the connection.
func (p *Patient) Close() error {
	if l, ok := p.daemon.(live); ok {
		return l.Close()
	}
	return nil
}

// Fix does what is safe and no more: it makes carboy's own directories where
// they are missing, and removes what dead bottles left, as `carboy gc` does. It
// returns what it did, whether or not all of it went well.
func (p *Patient) Fix(ctx context.Context) (done []string, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("--fix takes root: run carboy with sudo: %w", errdefs.ErrPermissionDenied)
	}
	made, err := p.MakeDirectories()
	for _, dir := range made {
		done = append(done, "made "+policy.OneLine(dir))
	}
	l, ok := p.daemon.(live)
	if !ok {
		return done, err
	}
	swept, sweepErr := l.GC(l.Context(ctx), runtime.Sweep{})
	for _, s := range swept {
		if s.Error == "" {
			done = append(done, policy.OneLine(fmt.Sprintf("removed %s %s", s.Kind, nameOf(s))))
		}
	}
	return done, errors.Join(err, sweepErr)
}

// text is a file of the kernel's, without the end of its line.
func (p *Patient) text(path string) (string, error) {
	b, err := fs.ReadFile(p.files, path)
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	return string(b), err
}

// program finds an executable in the directories of a PATH.
func program(path, name string) (string, bool) {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 { //nolint:gosec // it is only looked at
			return file, true
		}
	}
	return "", false
}

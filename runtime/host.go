package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/image"
	"carboy/image/registry"
)

// Host is where bottles live: one containerd and one state directory. Every
// method wants a context that carries the containerd namespace (Context).
type Host struct {
	Config
	Client *containerd.Client
	Images image.Store
	Trace  *Trace
}

// Config is what an operator may set for a host.
type Config struct {
	Address     string // containerd's socket
	Namespace   string // containerd's
	Snapshotter string
	StateDir    string // on a tmpfs
	LogDir      string
	DataDir     string // on a disk; holds what outlives bottles
	PluginDir   string // holds the CNI plugins
	Libexec     string // holds carboy's helpers
	Range       netip.Prefix
	Reserved    []netip.Prefix
	DNS         []netip.Addr
	Conflist    []byte // the operator's own egress network
	Registries  registry.Access
	OnlyOf      *int // uid of the user whose bottles alone are there to be seen and touched; nil has everybody's
}

// shows says whether a bottle of that user is there for who asks. All that lists
// and finds bottles asks it.
func (c Config) shows(uid int) bool { return c.OnlyOf == nil || *c.OnlyOf == uid }

// everybodys is the host as it is, for what has to know of all bottles: names
// that are taken, and what dead ones left.
func (h *Host) everybodys() *Host {
	whole := *h
	whole.OnlyOf = nil
	return &whole
}

// Open connects to containerd. The caller closes the host.
func Open(ctx context.Context, c Config) (*Host, error) {
	if !filepath.IsAbs(c.Address) {
		return nil, fmt.Errorf("containerd address %q: give an absolute path: %w", c.Address, errdefs.ErrInvalidArgument)
	}
	if err := errors.Join(c.checkDirectories(), checkSocket(c.Address)); err != nil {
		return nil, err
	}
	labels, err := pullLabels()
	if err != nil {
		return nil, err
	}
	client, err := connect(ctx, c.Address)
	if err != nil {
		return nil, err
	}
	h := &Host{Config: c, Client: client}
	h.Images = image.Store{Client: client, Snapshotter: c.Snapshotter, Access: c.Registries, LeaseLabels: labels, Lock: h.lockPull}
	return h, nil
}

// answerTime is how long containerd may take for a question that costs nothing.
const answerTime = 10 * time.Second

// connect fails for a containerd that hangs as well, which still has its socket.
func connect(ctx context.Context, address string) (*containerd.Client, error) {
	client, err := containerd.New(address, containerd.WithTimeout(answerTime))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s does not answer: %w", address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := client.Version(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("containerd at %s does not answer within %v: look at its log, or restart it: bottles live on meanwhile (%w): %w", address, answerTime, err, errdefs.ErrUnavailable), client.Close())
	}
	return client, nil
}

// Close ends the connection.
func (h *Host) Close() error { return h.Client.Close() }

// Context adds the containerd namespace that every call needs.
func (h *Host) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, h.Namespace)
}

// checkSocket turns what a user would otherwise wait for into words.
func checkSocket(address string) error {
	conn, err := net.DialTimeout("unix", address, 2*time.Second)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("no containerd at %s: start it (systemctl start containerd), install it (apt install containerd), or name its socket with --address: %w", address, errdefs.ErrUnavailable)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("containerd's socket %s is root's: run carboy with sudo: %w", address, errdefs.ErrPermissionDenied)
	case err != nil:
		return fmt.Errorf("nothing answers at containerd's socket %s: %w", address, err)
	}
	return conn.Close()
}

// CheckReady refuses a host on which a bottle could not be sealed or removed.
func (h *Host) CheckReady() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("bottles need root: run carboy with sudo: %w", errdefs.ErrPermissionDenied)
	}
	const longestSocket = 107 // unix(7)
	if len(Record{StateDir: h.StateDir, Instance: newInstance()}.controlPath()) > longestSocket {
		return fmt.Errorf("state directory %s: its name is too long for a socket below it: %w", h.StateDir, errdefs.ErrInvalidArgument)
	}
	return errors.Join(checkDescriptors(), h.makeStateDir(), h.checkMounts(), h.checkHelpers())
}

// checkDescriptors: a bottle takes about 40 file descriptors, and more for its
// viewers. One that began to run out of them would run without its logs.
func checkDescriptors() error {
	const least = 128
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Cur < least {
		return fmt.Errorf("the limit of open files is %d, a bottle needs %d: raise it (ulimit -n, LimitNOFILE= of a unit): %w", limit.Cur, least, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// checkMounts: files that we show to containers are looked up by containerd's
// runtime, in its mount namespace.
func (h *Host) checkMounts() error {
	pid, err := peerPID(h.Address)
	if err != nil {
		return fmt.Errorf("find containerd's process: %w", err)
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return fmt.Errorf("containerd's mount namespace: %w", err)
	}
	if ours != theirs {
		return fmt.Errorf("carboy runs in another mount namespace than containerd (a unit with PrivateTmp=, ProtectSystem= or the like?): bottles cannot be made from here: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// peerPID is the process that listens on a unix socket.
func peerPID(address string) (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	cred, err := peerCred(conn)
	if err != nil {
		return 0, err
	}
	if cred.Pid == 0 {
		return 0, errors.New("it is in another pid namespace")
	}
	return int(cred.Pid), nil
}

func peerCred(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(controlErr, err)
}

func (h *Host) initPath() string { return filepath.Join(h.Libexec, "carboy-init") }

func (h *Host) egressPath() string { return filepath.Join(h.Libexec, "carboy-egress") }

func (h *Host) checkHelpers() error {
	for _, path := range []string{h.initPath(), h.egressPath()} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("carboy's helpers are not in %s: install carboy with its libexec directory (make install): %w", h.Libexec, err)
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"

	"carboy/runtime/buildproto"
)

// wrong is an error of the request.
type wrong struct{ error }

// build is the client half.
func build(ctx context.Context, link *buildproto.Link) error {
	var b buildproto.Build
	if err := link.Receive(&b); err != nil {
		return fmt.Errorf("read what to build: %w", err)
	}
	ctx, cancel := untilEnd(ctx, func() error { return link.Receive(&struct{}{}) })
	defer cancel()
	digest, err := solve(ctx, b)
	if ctx.Err() != nil {
		return nil // nobody listens
	}
	result := buildproto.Result{Digest: digest}
	if err != nil {
		var w wrong
		result.Error, result.Usage = words(err), errors.As(err, &w)
	}
	return link.Send(result)
}

// words also says whose rights were not enough.
func words(err error) string {
	text := strings.TrimPrefix(err.Error(), "failed to solve: ")
	if errors.Is(err, fs.ErrPermission) || strings.HasSuffix(text, "permission denied") {
		text += fmt.Sprintf(" (opened with the rights of user %d, who asked for the build)", os.Getuid())
	}
	return text
}

func solve(ctx context.Context, b buildproto.Build) (digest string, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	options, err := solveOptions(b, fail)
	if err != nil {
		return "", err
	}
	display, err := newDisplay(b)
	if err != nil {
		return "", err
	}
	status := make(chan *client.SolveStatus)
	shown := status
	if b.Progress != "json" || isTerminal(os.Stderr) { // programs want it as it is
		shown = tameStatuses(status)
	}
	c, err := connect(ctx, b.Buildkit)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		response, err := c.Solve(gctx, nil, options, status)
		if err != nil {
			return err
		}
		digest = response.ExporterResponse["containerimage.digest"]
		return nil
	})
	g.Go(func() error {
		// Beyond the build's own end: what it said last counts.
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), shown)
		return err
	})
	err = g.Wait()
	if unread := context.Cause(ctx); unread != nil {
		return "", unread // what was built has an empty file in its place
	}
	if err != nil {
		showSource(err)
		return "", err
	}
	return digest, nil
}

// showSource prints the lines of the Dockerfile that an error is about.
func showSource(err error) {
	out := tame{os.Stderr}
	for _, s := range errdefs.Sources(err) {
		_ = s.Print(out) // the error itself follows
	}
}

func connect(ctx context.Context, address string) (*client.Client, error) {
	if address != "" {
		c, err := client.New(ctx, address)
		if err != nil {
			return nil, wrong{fmt.Errorf("buildkitd at %s: %w", address, err)}
		}
		return c, nil
	}
	conn, err := buildproto.Inherited(buildproto.WireFD)
	if err != nil {
		return nil, err
	}
	once := make(chan net.Conn, 1)
	once <- conn
	return client.New(ctx, "unix:///wire", client.WithContextDialer(func(context.Context, string) (net.Conn, error) {
		select {
		case c := <-once:
			return c, nil
		default:
			return nil, errors.New("the build's controller has ended")
		}
	}))
}

func solveOptions(b buildproto.Build, fail context.CancelCauseFunc) (o client.SolveOpt, err error) {
	dir, file, err := b.Locate(os.Stat)
	if err != nil {
		return o, wrong{err}
	}
	locals := map[string]fsutil.FS{}
	if locals["context"], err = newFiles(dir, fail); err != nil {
		return o, wrong{fmt.Errorf("build context: %w", err)}
	}
	if locals["dockerfile"], err = newFiles(filepath.Dir(file), fail); err != nil {
		return o, wrong{fmt.Errorf("the Dockerfile: %w", err)}
	}
	// Another's buildkitd does not know to name the snapshot that it has.
	unpack := strconv.FormatBool(b.Buildkit != "")
	o = client.SolveOpt{
		Frontend: frontendName, FrontendAttrs: frontendOptions(b, filepath.Base(file)),
		LocalMounts: locals, SharedKey: sharedKey(dir), Internal: true,
		Exports: []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{
			"name": strings.Join(b.Names, ","), "unpack": unpack, "compression": "zstd", "compression-level": "1", "oci-mediatypes": "true",
		}}},
	}
	if b.Network == buildproto.NetworkHost {
		o.AllowedEntitlements = []string{"network.host"}
	}
	o.Session, err = attachables(b)
	return o, err
}

func frontendOptions(b buildproto.Build, file string) map[string]string {
	attrs := map[string]string{
		"filename": file,
		// The built-in frontend is the only one: with this it skips a line
		// `# syntax=`, which names another as an image.
		"cmdline":            "carboy",
		"image-resolve-mode": "local",
	}
	if b.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	if b.NoCache {
		attrs["no-cache"] = ""
	}
	if b.Network != buildproto.NetworkEgress {
		attrs["force-network-mode"] = b.Network
	}
	for key, value := range map[string]string{
		"target": b.Target, "platform": strings.Join(b.Platforms, ","), "add-hosts": addHosts(b.Hosts),
	} {
		if value != "" {
			attrs[key] = value
		}
	}
	for name, value := range b.Args {
		attrs["build-arg:"+name] = value
	}
	return attrs
}

// addHosts has the form that the frontend reads.
func addHosts(hosts []string) string {
	list := make([]string, 0, len(hosts))
	for _, h := range hosts {
		name, address, _ := strings.Cut(h, ":")
		list = append(list, name+"="+address)
	}
	return strings.Join(list, ",")
}

func newDisplay(b buildproto.Build) (progressui.Display, error) {
	mode := progressui.DisplayMode(b.Progress)
	switch {
	case b.Quiet:
		mode = progressui.QuietMode
	case b.Progress == "json":
		mode = progressui.RawJSONMode
	case b.Progress == "auto" && !isTerminal(os.Stderr):
		mode = progressui.PlainMode
	}
	d, err := progressui.NewDisplay(os.Stderr, mode)
	if err != nil {
		return d, wrong{fmt.Errorf("--progress %s: %w", b.Progress, err)}
	}
	return d, nil
}

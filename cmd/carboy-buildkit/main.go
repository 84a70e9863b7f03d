// Command carboy-buildkit is BuildKit for one build: started by carboy, ended
// with it. `serve` is the controller, with root's rights on containerd; `build`
// is the client, with the rights of who asked for the build. Every path of
// theirs is opened by the client.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/containerd/log"

	"carboy/runtime/buildproto"
	"carboy/runtime/version"
)

func main() {
	if len(os.Args) != 3 {
		usage()
	}
	if err := version.Check("carboy-buildkit", version.Build, os.Args[2]); err != nil {
		fail(err)
	}
	// The terminal's signals are carboy's to act on.
	signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGQUIT)
	_ = log.SetLevel("error")
	// A build is short and its memory small: collecting garbage takes more than it gives.
	debug.SetGCPercent(400)
	var run func(context.Context, *buildproto.Link) error
	switch os.Args[1] {
	case buildproto.ServeCommand:
		run = serve
	case buildproto.BuildCommand:
		run = build
	default:
		usage()
	}
	if err := linked(run); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "carboy-buildkit:", err)
	os.Exit(1)
}

func usage() {
	fmt.Fprintf(os.Stderr, "carboy-buildkit %s is started by `carboy build`\n", version.Build)
	os.Exit(2)
}

func linked(run func(context.Context, *buildproto.Link) error) error {
	conn, err := buildproto.Inherited(buildproto.LinkFD)
	if err != nil {
		return err
	}
	link := buildproto.NewLink(conn)
	return errors.Join(run(context.Background(), link), link.Close())
}

// untilEnd returns a context that ends with what f reads from, which is the
// link. f returns at its end.
func untilEnd(ctx context.Context, f func() error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			if err := f(); err != nil {
				if errors.Is(err, io.EOF) {
					err = errors.New("carboy has ended")
				}
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

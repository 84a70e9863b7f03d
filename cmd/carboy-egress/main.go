// Command carboy-egress is the allowlist engine: a forward proxy that lets
// HTTP requests and TLS tunnels through to allowed hosts, and nothing else. It
// decides by name before it asks the DNS, dials the address that it checked,
// and looks at no content.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"carboy/runtime/proxy/policy"
	"carboy/runtime/version"
)

// Bounds on what a client can make us hold.
const (
	maxHeader      = 64 << 10
	headerTime     = 10 * time.Second
	maxConnections = 4096
)

type options struct {
	listen  string
	config  string
	idle    time.Duration
	build   string
	version bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "carboy-egress:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (o options, err error) {
	f := pflag.NewFlagSet("carboy-egress", pflag.ContinueOnError)
	f.StringVar(&o.listen, "listen", "", "address to listen on, as IP:PORT")
	f.StringVar(&o.config, "config", "", "directory that holds "+policy.File)
	f.DurationVar(&o.idle, "idle-timeout", 10*time.Minute, "how long a connection may carry nothing")
	f.StringVar(&o.build, "build", version.Build, "build of the carboy that starts this")
	f.BoolVar(&o.version, "version", false, "print the version")
	if err := f.Parse(args); err != nil || o.version {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.listen == "" || o.config == "" {
		return o, errors.New("--listen and --config are needed")
	}
	if _, err := netip.ParseAddrPort(o.listen); err != nil {
		return o, fmt.Errorf("--listen %q: give an address and a port, as in 10.66.0.1:8888", o.listen)
	}
	if o.idle <= 0 {
		return o, fmt.Errorf("--idle-timeout %s: give a time above zero", o.idle)
	}
	return o, version.Check("carboy-egress", version.Build, o.build)
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintln(stdout, version.Build)
		return err
	}
	// Before the policy is read, so that no change of it is missed.
	w, err := watch(o.config)
	if err != nil {
		return err
	}
	defer w.close()
	p, _, err := readPolicy(o.config)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", o.listen)
	if err != nil {
		return err
	}
	return newEngine(p, stdout, o.idle).serve(ctx, l, w)
}

// serve returns when the context ends, or the listener or the watch fails: a
// policy that cannot be followed is no policy.
func (e *engine) serve(ctx context.Context, l net.Listener, w *watcher) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler: e.handler(), ReadHeaderTimeout: e.patience(), MaxHeaderBytes: maxHeader, IdleTimeout: e.idle,
		ErrorLog: log.New(os.Stderr, "carboy-egress: ", 0),
	}
	ended := make(chan error, 2)
	go func() { ended <- w.follow(ctx, e) }()
	go func() { ended <- server.Serve(newGate(l, maxConnections, e.idle)) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	return errors.Join(err, server.Close())
}

// Command carboy-egress is the allowlist engine: a forward proxy that lets
// HTTP requests and TLS tunnels through to allowed hosts, and nothing else. It
// decides by name before it asks the DNS, dials the address that it checked,
// and looks at no content.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/pflag"
	"golang.org/x/net/netutil"

	"carboy/runtime/proxy/policy"
)

// Bounds on what a client can make us hold.
const (
	maxHeader      = 64 << 10
	headerTime     = 10 * time.Second
	maxConnections = 4096
)

type options struct {
	listen string
	config string
	idle   time.Duration
}

func main() {
	var o options
	pflag.StringVar(&o.listen, "listen", "", "address to listen on, as IP:PORT")
	pflag.StringVar(&o.config, "config", "", "directory that holds "+policyFile)
	pflag.DurationVar(&o.idle, "idle-timeout", 10*time.Minute, "how long a connection may carry nothing")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "carboy-egress:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stopped on the line above
	}
}

func run(ctx context.Context, o options, decisions io.Writer) error {
	if o.listen == "" || o.config == "" {
		return errors.New("--listen and --config are needed")
	}
	p, err := readPolicy(o.config)
	if err != nil {
		return err
	}
	e := newEngine(p, decisions, o.idle)
	watched := make(chan error, 1)
	go func() { watched <- e.follow(ctx, o.config) }()
	l, err := net.Listen("tcp4", o.listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: e.handler(), ReadHeaderTimeout: headerTime, MaxHeaderBytes: maxHeader, IdleTimeout: o.idle,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(netutil.LimitListener(l, maxConnections)) }()
	select {
	case err = <-served:
	case err = <-watched: // a policy that cannot be followed is no policy
	case <-ctx.Done():
	}
	return errors.Join(err, server.Close())
}

const policyFile = "policy.json"

func readPolicy(dir string) (policy.Policy, error) {
	var p policy.Policy
	b, err := os.ReadFile(filepath.Join(dir, policyFile))
	if err != nil {
		return p, fmt.Errorf("read policy: %w", err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("policy %s: %w", filepath.Join(dir, policyFile), err)
	}
	return p, nil
}

// follow takes a new policy on SIGHUP and when the directory changes. A bad one
// is told and the old one stays.
func (e *engine) follow(ctx context.Context, dir string) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch policy: %w", err)
	}
	defer w.Close()
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("watch policy: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			return fmt.Errorf("watch policy: %w", err)
		case <-w.Events:
		case <-hup:
		}
		p, err := readPolicy(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "carboy-egress: policy not reloaded:", err)
			continue
		}
		e.reload(p)
	}
}

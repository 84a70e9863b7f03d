// Command demo seals an agent that tries every way out, and shows what got
// through. It runs in a private host with a containerd and an Internet of its
// own, from the repository's build directory: `sudo make demo`.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"carboy/test/world"
)

const patience = 2 * time.Minute

func main() {
	if err := demo(); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func demo() (err error) {
	if err := world.Enter(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the demo took longer than %v", patience))
	defer cancel()
	s, err := prepare(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	page := newPage(os.Stdout)
	return errors.Join(s.play(ctx, page), page.err)
}

// play tries everything without a bottle and then in one, and tells.
func (s *stage) play(ctx context.Context, p *page) error {
	p.title("A private host with containerd " + s.version + ", an Internet to reach, and one agent to seal")
	p.printf("  %s\n", s.proxyText())
	host, err := s.fromHost(ctx)
	if err != nil {
		return err
	}
	before, err := s.Snapshot(ctx)
	if err != nil {
		return err
	}
	p.title("$ carboy " + strings.Join(s.commandLine(), " "))
	bottle, err := s.fromBottle(ctx)
	if err != nil {
		return err
	}
	diff, err := s.WaitClean(ctx, before)
	if err != nil {
		return err
	}
	p.quote(bottle.plan)
	p.title("What arrived where the agent wanted to")
	p.table(host, bottle.outcomes)
	p.title(fmt.Sprintf("How long it took: %d ms from the command to the agent's first word", bottle.first.Milliseconds()))
	p.quote(bottle.timings)
	return verdict(p, host, bottle, diff)
}

func (s *stage) proxyText() string {
	if s.binary != "" {
		return "The proxy is pipelock: " + s.binary
	}
	return "The proxy is the allowlist engine: there is no pipelock in PATH or $PIPELOCK"
}

// names lets the resolver know the name that only the agent asks for.
func names() map[string]netip.Addr {
	return map[string]netip.Addr{asked: netip.MustParseAddr(world.Denied)}
}

// verdict is an error for everything that is not as it should be.
func verdict(p *page, host []outcome, bottle performance, diff string) error {
	var errs []error
	for i, a := range attempts {
		// Without this, that nothing arrived would prove nothing.
		if o := host[i]; !o.claimed || o.arrived == 0 {
			errs = append(errs, fmt.Errorf("%s: not even the host got there", a.what))
		}
		if o := bottle.outcomes[i]; !o.right(a) {
			errs = append(errs, fmt.Errorf("%s: %s", a.what, o))
		}
	}
	for _, a := range bottle.strays {
		errs = append(errs, fmt.Errorf("from the bottle, and no attempt of the agent's: %s at %s from %s %q", a.Server, a.Local, a.Remote, a.Names))
	}
	if diff != "" {
		errs = append(errs, fmt.Errorf("the host is not as it was:\n%s", diff))
	}
	if len(errs) == 0 {
		p.title("Sealed: only what was allowed got through, and the host is as it was but for the bottle's logs")
	}
	return errors.Join(errs...)
}

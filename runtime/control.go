package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"carboy/runtime/initproto"
)

// controlSocket is where a supervisor takes commands of `carboy exec` and requests
// of `carboy egress`.
const controlSocket = "ctl.sock"

func (r Record) controlPath() string { return filepath.Join(r.dir(), controlSocket) }

// Serve opens the control socket, on which others look at and drive the agent's
// command, until the bottle goes down. The directory is root's alone, and the
// peer is asked as well.
func (b *Bottle) Serve(ctx context.Context, agent initproto.Agent) error {
	l, err := net.Listen("unix", b.controlPath())
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	b.control = l
	var steering context.Context
	steering, b.endSteering = context.WithCancel(ctx)
	if err := os.Chmod(b.controlPath(), 0o600); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed by Down
			}
			go b.serveControl(ctx, steering, conn.(*net.UnixConn), agent)
		}
	}()
	return nil
}

// serveControl goes on while the bottle goes down: its peers are to hear how the
// command ended. Only nothing is steered any more.
func (b *Bottle) serveControl(ctx, steering context.Context, conn *net.UnixConn, agent initproto.Agent) {
	defer conn.Close()
	if cred, err := peerCred(conn); err != nil || cred.Uid != 0 {
		return
	}
	steer := func(_ context.Context, request []byte) []byte { return b.steer(steering, request) }
	_ = b.agent.init.Relay(ctx, conn, b.complete, agent, steer) // the peer sees its connection end
}

// complete gives a further command what the agent has, where its asker left it
// open. From then on the proxy's log hides what the asker brought.
func (b *Bottle) complete(s initproto.Spec) initproto.Spec {
	b.proxyLog.veil.Add(unspoken(broughtValues(s)))
	s.Forwarded = nil
	env := append([]string(nil), b.command.Env...)
	s.Env = lastWins(append(env, s.Env...))
	if s.User == "" {
		s.User = b.command.User
	}
	s.NotRoot = !isRoot(s.User)
	if s.Dir == "" {
		s.Dir = b.command.Dir
	}
	return s
}

// Dial connects to the supervisor of a running bottle; commands started
// through the client run in the agent's container. The caller closes conn.
func (h *Host) Dial(ctx context.Context, name string) (c *initproto.Client, conn net.Conn, err error) {
	r, err := h.Find(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	var d net.Dialer
	if conn, err = d.DialContext(ctx, "unix", r.controlPath()); err != nil {
		return nil, nil, fmt.Errorf("bottle %s is not running (%s): %w", name, h.state(r), errdefs.ErrFailedPrecondition)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if c, err = initproto.NewClient(conn, conn); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("talk to the supervisor of %s: %w", name, err), conn.Close())
	}
	return c, conn, nil
}

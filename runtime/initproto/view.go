package initproto

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"time"
)

// Agent is a supervisor's own command, which any number of peers may look at.
type Agent interface {
	// View writes the output until the command's end, which it returns, or
	// that of ctx. The command never waits for it.
	View(ctx context.Context, stdout, stderr io.Writer) (Exit, error)
	// Wait is View without the output.
	Wait(ctx context.Context) (Exit, error)
	Input() io.Writer
	Signal(s syscall.Signal) error
	Stop(grace time.Duration)
	// Resize also has the command draw its terminal anew when that is its size
	// already: a new viewer's is empty.
	Resize(s Size) error
}

// view is one peer's look at the agent's command.
type view struct {
	agent  Agent
	out    map[Kind]*Outlet
	in     *Inlet
	cancel context.CancelFunc
}

func (r *relay) attach(ctx context.Context, f Frame) error {
	var a Attach
	if err := f.Decode(&a); err != nil {
		return err
	}
	r.mu.Lock()
	_, taken := r.far[f.ID]
	r.mu.Unlock()
	if taken || r.views[f.ID] != nil || r.agent == nil {
		return fmt.Errorf("attach as process %d: %w", f.ID, ErrProtocol)
	}
	ctx, cancel := context.WithCancel(ctx)
	v := &view{agent: r.agent, cancel: cancel, in: NewInlet(r.w, KindStdin, f.ID),
		out: map[Kind]*Outlet{KindStdout: NewOutlet(r.w, KindStdout, f.ID), KindStderr: NewOutlet(r.w, KindStderr, f.ID)}}
	r.views[f.ID] = v
	if a.Stdin {
		go func() { _ = v.in.CopyTo(r.agent.Input()) }() // ends with the view
	}
	go v.run(ctx, r, f.ID, a)
	return nil
}

// run tells the peer the end of the command, after its output.
func (v *view) run(ctx context.Context, r *relay, id uint32, a Attach) {
	var exit Exit
	var err error
	if a.Output {
		exit, err = v.agent.View(ctx, v.out[KindStdout], v.out[KindStderr])
	} else {
		exit, err = v.agent.Wait(ctx)
	}
	if err != nil {
		exit = Exit{Code: 125, Reason: err.Error()}
	}
	if ctx.Err() == nil {
		_ = r.w.WriteJSON(KindExited, id, exit) // the peer may have gone
	}
}

// take obeys a frame of the peer's.
func (v *view) take(f Frame) error {
	switch f.Kind {
	case KindStdin:
		if len(f.Payload) == 0 {
			return nil // others may go on writing: one viewer's end is not the input's
		}
		return v.in.Push(f.Payload)
	case KindSignal:
		_ = v.agent.Signal(syscall.Signal(f.Payload[0])) // it may have ended
	case KindStop:
		var s Stop
		if err := f.Decode(&s); err != nil {
			return err
		}
		v.agent.Stop(s.Grace)
	case KindResize:
		var size Size
		if err := f.Decode(&size); err != nil {
			return err
		}
		_ = v.agent.Resize(size) // likewise
	case KindCredit:
		kind, n, err := f.Credit()
		if err != nil {
			return err
		}
		if out := v.out[kind]; out != nil {
			return out.Grant(n)
		}
	}
	return nil
}

func (v *view) close() {
	v.cancel()
	v.in.Close()
	for _, o := range v.out {
		o.Close()
	}
}

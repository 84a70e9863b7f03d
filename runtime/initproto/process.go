package initproto

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

// Streams are a process's standard streams on our side. A nil Stdin is an
// empty input, a nil writer drops the output.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Process is a command that carboy-init runs for us.
type Process struct {
	c      *Client
	id     uint32
	stdin  *Outlet
	stdout *Inlet
	stderr *Inlet

	pumps   sync.WaitGroup
	drained chan struct{} // all output has been written
	started chan struct{}
	once    sync.Once
	ended   chan struct{}
	exit    Exit
	err     error
}

// Start runs a command. It returns as soon as the request is sent: a command
// that cannot be started ends with Exit.Reason and code 126 or 127.
func (c *Client) Start(spec Spec, s Streams) (*Process, error) {
	spec.Stdin = s.Stdin != nil
	return c.begin(KindStart, spec, s)
}

// Attach connects to the agent's command of a supervisor. What is done to the
// process is done to that.
func (c *Client) Attach(s Streams) (*Process, error) {
	return c.begin(KindAttach, Attach{Output: s.Stdout != nil || s.Stderr != nil, Stdin: s.Stdin != nil}, s)
}

func (c *Client) begin(kind Kind, request any, s Streams) (*Process, error) {
	var p *Process
	_, err := c.Route(func(id uint32) Sink {
		p = newProcess(c, id, s)
		return p
	})
	if err != nil {
		return nil, err
	}
	if err := c.w.WriteJSON(kind, p.id, request); err != nil {
		c.Forget(p.id)
		p.end(err)
		return nil, fmt.Errorf("start command: %w", err)
	}
	if s.Stdin != nil {
		go p.feed(s.Stdin)
	}
	return p, nil
}

func newProcess(c *Client, id uint32, s Streams) *Process {
	p := &Process{c: c, id: id, ended: make(chan struct{}), started: make(chan struct{}), drained: make(chan struct{}), stdin: NewOutlet(c.w, KindStdin, id)}
	p.stdout = p.drain(KindStdout, s.Stdout)
	p.stderr = p.drain(KindStderr, s.Stderr)
	go func() {
		p.pumps.Wait()
		close(p.drained)
	}()
	return p
}

func (p *Process) drain(kind Kind, dst io.Writer) *Inlet {
	if dst == nil {
		dst = io.Discard
	}
	in := NewInlet(p.c.w, kind, p.id)
	p.pumps.Go(func() { _ = in.CopyTo(dst) }) // a viewer that has gone is not the process's fault
	return in
}

// feed ends with the input, or with the process. A reader that blocks keeps
// one goroutine until it returns; standard input cannot be interrupted.
func (p *Process) feed(stdin io.Reader) {
	if _, err := io.CopyBuffer(p.stdin, stdin, make([]byte, Chunk)); err != nil {
		return
	}
	_ = p.c.Send(Frame{Kind: KindStdin, ID: p.id}) // a lost connection is told by Wait
}

// Take implements Sink.
func (p *Process) Take(f Frame) error {
	switch f.Kind {
	case KindStdout:
		return p.stdout.Push(f.Payload)
	case KindStderr:
		return p.stderr.Push(f.Payload)
	case KindCredit:
		_, n, err := f.Credit()
		if err != nil {
			return err
		}
		return p.stdin.Grant(n)
	case KindStarted:
		select {
		case <-p.started:
			return fmt.Errorf("process %d started twice: %w", p.id, ErrProtocol)
		default:
			close(p.started)
			return nil
		}
	case KindExited:
		if err := f.Decode(&p.exit); err != nil {
			return err
		}
		p.end(nil)
		return nil
	default:
		return fmt.Errorf("frame of kind %d for a process: %w", f.Kind, ErrProtocol)
	}
}

// Lost implements Sink.
func (p *Process) Lost(err error) { p.end(fmt.Errorf("carboy-init went away: %w", err)) }

func (p *Process) end(err error) {
	p.once.Do(func() {
		p.err = err
		p.stdin.Close()
		p.stdout.Close()
		p.stderr.Close()
		close(p.ended)
	})
}

// Wait returns when the process has ended and its output has been written. A
// process counts as running while its output is not taken.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	for _, done := range []<-chan struct{}{p.ended, p.drained} {
		select {
		case <-done:
		case <-ctx.Done():
			return Exit{}, context.Cause(ctx)
		}
	}
	return p.exit, p.err
}

// Ended is closed when the process has ended or the connection is lost.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Started is closed when the command runs. It may end without.
func (p *Process) Started() <-chan struct{} { return p.started }

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) error {
	return p.c.Send(Frame{Kind: KindSignal, ID: p.id, Payload: []byte{byte(s)}})
}

// Stop ends the agent's command for good, where p is a look at that.
func (p *Process) Stop(grace time.Duration) error {
	return p.c.w.WriteJSON(KindStop, p.id, Stop{Grace: grace})
}

// Resize tells the process's terminal its new size.
func (p *Process) Resize(s Size) error { return p.c.w.WriteJSON(KindResize, p.id, s) }

package initproto

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"syscall"
)

// Relay serves one peer that speaks this protocol, such as `carboy exec`, out
// of c: it may start commands and drive its own, and look at and drive the
// agent's, nothing else but what steer answers. complete fills in what the peer
// left open in a command.
// Relay returns when the peer has gone; the peer's commands are then hung up.
func (c *Client) Relay(ctx context.Context, peer io.ReadWriteCloser, complete func(Spec) Spec, agent Agent, steer Steer) error {
	w := NewWriter(peer)
	r := &relay{c: c, w: w, peer: peer, complete: complete, agent: agent, steer: steer,
		out: make(chan Frame, queueLength), gone: make(chan struct{}), far: map[uint32]uint32{}, views: map[uint32]*view{}}
	in := bufio.NewReaderSize(peer, 2*Chunk)
	if _, err := Handshake(in, w); err != nil {
		return err
	}
	var sent sync.WaitGroup
	sent.Go(func() { r.send(w) })
	err := r.receive(ctx, in)
	close(r.gone)
	sent.Wait()
	r.hangUp()
	for _, v := range r.views {
		v.close()
	}
	return err
}

// queueLength is above what one command's three streams can have under way.
// A peer that does not read and has more than that waiting is cut off: the
// bottle never waits for it.
const queueLength = 4 * Window / overhead

type relay struct {
	c        *Client
	w        *Writer
	peer     io.Closer
	complete func(Spec) Spec
	agent    Agent
	steer    Steer
	out      chan Frame
	gone     chan struct{}
	views    map[uint32]*view // of the goroutine that receives

	mu  sync.Mutex
	far map[uint32]uint32 // the peer's id -> carboy-init's
}

func (r *relay) send(w *Writer) {
	for {
		select {
		case f := <-r.out:
			if w.Write(f) != nil {
				return
			}
		case <-r.gone:
			return
		}
	}
}

func (r *relay) receive(ctx context.Context, in io.Reader) error {
	for {
		f, err := ReadFrame(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.forward(ctx, f); err != nil {
			return err
		}
	}
}

func (r *relay) forward(ctx context.Context, f Frame) error {
	switch f.Kind {
	case KindStart:
		return r.start(f)
	case KindAttach:
		return r.attach(ctx, f)
	case KindList:
		return r.list(f)
	case KindSteer:
		go r.answer(ctx, f) // it may take long
		return nil
	case KindStdin, KindSignal, KindResize, KindCredit, KindStop:
		if err := f.check(); err != nil {
			return err
		}
		if v := r.views[f.ID]; v != nil {
			return v.take(f)
		}
		r.mu.Lock()
		id, ok := r.far[f.ID]
		r.mu.Unlock()
		if !ok {
			return nil // its command has just ended
		}
		if f.Kind == KindStop {
			return fmt.Errorf("stop of a command of its own: %w", ErrProtocol)
		}
		f.ID = id
		return r.c.Send(f)
	default:
		return fmt.Errorf("frame of kind %d from a peer: %w", f.Kind, ErrProtocol)
	}
}

// check refuses a frame about a process that carboy-init could not read: the
// peer is cut off for it, and not the bottle.
func (f Frame) check() error {
	switch f.Kind {
	case KindResize:
		return f.Decode(&Size{})
	case KindSignal:
		if len(f.Payload) != 1 {
			return fmt.Errorf("signal of %d bytes: %w", len(f.Payload), ErrProtocol)
		}
	case KindCredit:
		_, _, err := f.Credit()
		return err
	}
	return nil
}

func (r *relay) start(f Frame) error {
	var spec Spec
	if err := f.Decode(&spec); err != nil {
		return err
	}
	id, err := r.route(f.ID)
	if err != nil {
		return err
	}
	return r.c.w.WriteJSON(KindStart, id, r.complete(spec))
}

func (r *relay) list(f Frame) error {
	id, err := r.route(f.ID)
	if err != nil {
		return err
	}
	return r.c.Send(Frame{Kind: KindList, ID: id})
}

// Steer answers what a peer asks the supervisor itself, in JSON.
type Steer func(ctx context.Context, request []byte) (answer []byte)

func (r *relay) answer(ctx context.Context, f Frame) {
	done := Done{Error: "this supervisor answers nothing"}
	if r.steer != nil {
		done = Done{Answer: r.steer(ctx, f.Payload)}
	}
	if err := r.w.WriteJSON(KindDone, f.ID, done); err != nil {
		_ = r.w.WriteJSON(KindDone, f.ID, Done{Error: err.Error()}) // it was too long, or the peer has gone
	}
}

// route takes an id of carboy-init's for the peer's. Nothing is sent under the
// lock: what comes back needs it.
func (r *relay) route(near uint32) (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.far[near]; taken || r.views[near] != nil {
		return 0, fmt.Errorf("process %d started twice: %w", near, ErrProtocol)
	}
	id, err := r.c.Route(func(uint32) Sink { return &back{relay: r, near: near} })
	if err == nil {
		r.far[near] = id
	}
	return id, err
}

func (r *relay) hangUp() {
	r.mu.Lock()
	left := slices.Collect(maps.Values(r.far))
	r.mu.Unlock()
	for _, id := range left {
		_ = r.c.Send(Frame{Kind: KindSignal, ID: id, Payload: []byte{byte(syscall.SIGHUP)}})
		_ = r.c.Send(Frame{Kind: KindStdin, ID: id})
	}
}

// back is the way from carboy-init to the peer for one command.
type back struct {
	*relay
	near uint32
}

func (b *back) Take(f Frame) error {
	if f.Kind == KindExited || f.Kind == KindDone {
		b.mu.Lock()
		delete(b.far, b.near)
		b.mu.Unlock()
	}
	far := f.ID
	f.ID = b.near
	select {
	case <-b.gone:
		return b.drop(far, f)
	default:
	}
	select {
	case b.out <- f:
	default:
		_ = b.peer.Close() // ends receive, and with it the relay
	}
	return nil
}

// drop takes the output of a command whose peer has gone, so that one which
// survives the hang-up is not blocked for ever.
func (b *back) drop(far uint32, f Frame) error {
	if f.Kind != KindStdout && f.Kind != KindStderr {
		return nil
	}
	// Not from here: this is the goroutine that reads, and carboy-init may be
	// waiting for that.
	go func() { _ = b.c.Send(creditFrame(f.Kind, far, len(f.Payload)+overhead)) }()
	return nil
}

func (b *back) Lost(err error) {
	payload, _ := json.Marshal(Exit{Code: 125, Reason: "the bottle ended: " + err.Error()}) // a struct of plain fields
	_ = b.Take(Frame{Kind: KindExited, Payload: payload})
}

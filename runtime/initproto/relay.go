package initproto

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// Relay serves one peer that speaks this protocol, such as `carboy exec`, out
// of c: it may start commands and drive its own, nothing else. complete fills
// in what the peer left open in a command. Relay returns when the peer has
// gone; the peer's commands are then hung up.
func (c *Client) Relay(peer io.ReadWriteCloser, complete func(Spec) Spec) error {
	r := &relay{c: c, peer: peer, complete: complete, out: make(chan Frame, queueLength), gone: make(chan struct{}), far: map[uint32]uint32{}}
	w := NewWriter(peer)
	in := bufio.NewReaderSize(peer, 2*Chunk)
	if err := Handshake(in, w); err != nil {
		return err
	}
	var sent sync.WaitGroup
	sent.Go(func() { r.send(w) })
	err := r.receive(in)
	close(r.gone)
	sent.Wait()
	r.hangUp()
	return err
}

// queueLength is above what one command's three streams can have under way.
// A peer that does not read and has more than that waiting is cut off: the
// bottle never waits for it.
const queueLength = 4 * Window / overhead

type relay struct {
	c        *Client
	peer     io.Closer
	complete func(Spec) Spec
	out      chan Frame
	gone     chan struct{}

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

func (r *relay) receive(in io.Reader) error {
	for {
		f, err := ReadFrame(in)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.forward(f); err != nil {
			return err
		}
	}
}

func (r *relay) forward(f Frame) error {
	switch f.Kind {
	case KindStart:
		return r.start(f)
	case KindStdin, KindSignal, KindResize, KindCredit:
		r.mu.Lock()
		id, ok := r.far[f.ID]
		r.mu.Unlock()
		if !ok {
			return nil // its command has just ended
		}
		f.ID = id
		return r.c.Send(f)
	default:
		return fmt.Errorf("frame of kind %d from a peer: %w", f.Kind, ErrProtocol)
	}
}

func (r *relay) start(f Frame) error {
	var spec Spec
	if err := f.Decode(&spec); err != nil {
		return err
	}
	near := f.ID
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.far[near]; taken {
		return fmt.Errorf("process %d started twice: %w", near, ErrProtocol)
	}
	id, err := r.c.Route(func(uint32) Sink { return &back{relay: r, near: near} })
	if err != nil {
		return err
	}
	r.far[near] = id
	return r.c.w.WriteJSON(KindStart, id, r.complete(spec))
}

func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.far {
		r.c.Forget(id)
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
	if f.Kind == KindExited {
		b.mu.Lock()
		delete(b.far, b.near)
		b.mu.Unlock()
	}
	f.ID = b.near
	select {
	case b.out <- f:
	case <-b.gone:
	default:
		_ = b.peer.Close() // ends receive, and with it the relay
	}
	return nil
}

func (b *back) Lost(err error) {
	payload, _ := json.Marshal(Exit{Code: 125, Reason: "the bottle ended: " + err.Error()}) // a struct of plain fields
	_ = b.Take(Frame{Kind: KindExited, Payload: payload})
}

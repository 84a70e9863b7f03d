package initproto

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// overhead is what a chunk costs of the window beside its bytes, so that a
// stream of single bytes cannot fill the receiver's memory with frames.
const overhead = 128

// Outlet is the sending half of one stream: it holds bytes back while the
// other side has not taken what is under way.
type Outlet struct {
	w    *Writer
	kind Kind
	id   uint32

	mu     sync.Mutex
	cond   *sync.Cond
	credit int
	closed bool
}

// NewOutlet is an outlet for the stream kind of process id.
func NewOutlet(w *Writer, kind Kind, id uint32) *Outlet {
	o := &Outlet{w: w, kind: kind, id: id, credit: Window}
	o.cond = sync.NewCond(&o.mu)
	return o
}

// Write sends p in chunks and waits for credit as needed. It fails with
// io.ErrClosedPipe once the outlet is closed.
func (o *Outlet) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n, err := o.take(min(len(p)-sent, Chunk))
		if err != nil {
			return sent, err
		}
		if err := o.w.Write(Frame{Kind: o.kind, ID: o.id, Payload: p[sent : sent+n]}); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

func (o *Outlet) take(want int) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.credit <= overhead && !o.closed {
		o.cond.Wait()
	}
	if o.closed {
		return 0, io.ErrClosedPipe
	}
	n := min(want, o.credit-overhead)
	o.credit -= n + overhead
	return n, nil
}

// Grant adds the credit that a KindCredit frame carries.
func (o *Outlet) Grant(n uint32) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n > Window || o.credit+int(n) > Window {
		return fmt.Errorf("credit of %d beyond the window: %w", n, ErrProtocol)
	}
	o.credit += int(n)
	o.cond.Broadcast()
	return nil
}

// Close releases a writer that waits for credit.
func (o *Outlet) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.cond.Broadcast()
}

// Inlet is the receiving half of one stream: it queues at most a window of
// bytes and gives credit back as they are taken.
type Inlet struct {
	w    *Writer
	kind Kind
	id   uint32

	mu     sync.Mutex
	cond   *sync.Cond
	queue  [][]byte
	size   int
	closed bool
}

// NewInlet is an inlet for the stream kind of process id.
func NewInlet(w *Writer, kind Kind, id uint32) *Inlet {
	in := &Inlet{w: w, kind: kind, id: id}
	in.cond = sync.NewCond(&in.mu)
	return in
}

// Push queues a frame's payload. More than a window is a breach.
func (in *Inlet) Push(p []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.size+len(p)+overhead > Window {
		return fmt.Errorf("stream %d of process %d beyond its window: %w", in.kind, in.id, ErrProtocol)
	}
	if in.closed || len(p) == 0 {
		return nil
	}
	in.queue = append(in.queue, p)
	in.size += len(p) + overhead
	in.cond.Broadcast()
	return nil
}

// Close marks the end of the stream; what is queued can still be read.
func (in *Inlet) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.cond.Broadcast()
}

// CopyTo writes the stream to dst until its end. After an error of dst it
// goes on to take and drop bytes, so that the other side is never blocked by
// a reader that has gone, and returns that error at the end.
func (in *Inlet) CopyTo(dst io.Writer) error {
	var failed error
	for {
		p, ok := in.next()
		if !ok {
			return failed
		}
		if failed == nil {
			_, failed = dst.Write(p)
		}
		if err := in.w.Write(creditFrame(in.kind, in.id, len(p)+overhead)); err != nil {
			return err
		}
	}
}

func (in *Inlet) next() ([]byte, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.queue) == 0 && !in.closed {
		in.cond.Wait()
	}
	if len(in.queue) == 0 {
		return nil, false
	}
	p := in.queue[0]
	in.queue = in.queue[1:]
	in.size -= len(p) + overhead
	return p, true
}

func creditFrame(kind Kind, id uint32, n int) Frame {
	payload := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(n))
	return Frame{Kind: KindCredit, ID: id, Payload: payload}
}

// Credit reads a KindCredit frame: the stream and the bytes granted.
func (f Frame) Credit() (Kind, uint32, error) {
	if len(f.Payload) != 5 {
		return 0, 0, fmt.Errorf("credit of %d bytes: %w", len(f.Payload), ErrProtocol)
	}
	return Kind(f.Payload[0]), binary.BigEndian.Uint32(f.Payload[1:]), nil
}

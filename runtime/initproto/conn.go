package initproto

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// FirstConn is the first id of connections, which carboy-init numbers.
const FirstConn = 1 << 31

// MostConns is how many connections may be open at a time.
const MostConns = 16

// Conn is either end of a connection to a socket in the container. Its owner
// closes it, also when the other end has: both say so once, and the connection
// is over when both have.
type Conn struct {
	w    *Writer
	id   uint32
	in   *Inlet
	out  *Outlet
	read *io.PipeReader
	said sync.Once // that this end is closed
	lost sync.Once
	gone chan struct{}
}

// NewConn is the connection id. What comes for it goes to Take.
func NewConn(w *Writer, id uint32) *Conn {
	read, write := io.Pipe()
	c := &Conn{w: w, id: id, in: NewInlet(w, KindData, id), out: NewOutlet(w, KindData, id), read: read, gone: make(chan struct{})}
	go func() {
		_ = c.in.CopyTo(write) // a link that is lost is told to every sink
		_ = write.Close()
	}()
	return c
}

// Closed is closed when the other end is, or when the link to it is lost.
func (c *Conn) Closed() <-chan struct{} { return c.gone }

// Read returns io.EOF once the other end has closed, or the link to it is gone.
func (c *Conn) Read(p []byte) (int, error) { return c.read.Read(p) }

// Write waits for a reader that is slow.
func (c *Conn) Write(p []byte) (int, error) { return c.out.Write(p) }

// Close tells the other end. Nothing is read or written any more.
func (c *Conn) Close() error {
	var err error
	c.said.Do(func() { err = c.w.Write(Frame{Kind: KindClose, ID: c.id}) })
	c.end()
	_ = c.read.Close() // never fails
	return err
}

// Take implements Sink.
func (c *Conn) Take(f Frame) error {
	switch f.Kind {
	case KindData:
		return c.in.Push(f.Payload)
	case KindCredit:
		_, n, err := f.Credit()
		if err != nil {
			return err
		}
		return c.out.Grant(n)
	case KindClose:
		c.Lost(nil)
		return nil
	default:
		return fmt.Errorf("frame of kind %d for a connection: %w", f.Kind, ErrProtocol)
	}
}

// Lost implements Sink. What has arrived can still be read.
func (c *Conn) Lost(error) {
	c.lost.Do(func() { close(c.gone) })
	c.end()
}

func (c *Conn) end() {
	c.in.Close()
	c.out.Close()
}

// Listen opens a socket inside the container and serves each connection to it
// in a goroutine of its own; serve's return closes it. There is one at most, and
// none after Seal.
func (c *Client) Listen(ctx context.Context, l Listen, serve func(*Conn)) error {
	c.mu.Lock()
	taken := c.serve != nil
	if !taken {
		c.serve = serve
	}
	c.mu.Unlock()
	if taken {
		return fmt.Errorf("listen at %s: there is a listener already", l.Path)
	}
	if _, err := c.ask(ctx, KindListen, l); err != nil {
		return fmt.Errorf("listen at %s in the container: %w", l.Path, err)
	}
	return nil
}

func (c *Client) accept(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serve == nil || id < FirstConn || c.sinks[id] != nil || c.conns == MostConns {
		return fmt.Errorf("connection %d of %d: %w", id, c.conns, ErrProtocol)
	}
	conn := NewConn(c.w, id)
	c.sinks[id] = conn
	c.conns++
	go func() {
		c.serve(conn)
		c.drop(conn)
	}()
	return nil
}

// drop frees the place before carboy-init, which waits for the word, can: else
// one more could be open than we count.
func (c *Client) drop(conn *Conn) {
	c.mu.Lock()
	delete(c.sinks, conn.id)
	c.conns--
	c.mu.Unlock()
	_ = conn.Close() // a lost link is told by Done
}

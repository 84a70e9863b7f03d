package initproto

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
)

// Client is the supervisor's end of a connection to carboy-init, or the end
// of `carboy exec` to a supervisor. Its methods may be called at any time
// from any goroutine.
type Client struct {
	w    *Writer
	peer Hello
	done chan struct{}

	mu    sync.Mutex
	next  uint32
	sinks map[uint32]Sink
	conns int
	serve func(*Conn) // nil: nobody may connect
	err   error
}

// Sink takes the frames that carry one id.
type Sink interface {
	// Take handles a frame; an error ends the connection.
	Take(Frame) error
	// Lost tells that no more frames will come, perhaps more than once.
	Lost(error)
}

// NewClient shakes hands and starts to read. The caller closes r and w, after
// which Done is closed.
func NewClient(r io.Reader, w io.Writer) (*Client, error) {
	c := &Client{w: NewWriter(w), done: make(chan struct{}), sinks: map[uint32]Sink{}}
	buffered := bufio.NewReaderSize(r, 2*Chunk)
	var err error
	if c.peer, err = Handshake(buffered, c.w); err != nil {
		return nil, err
	}
	go c.read(buffered)
	return c, nil
}

// Build is that of the other side, as it says.
func (c *Client) Build() string { return c.peer.Build }

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the connection ended, io.EOF when the other side went away.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) read(r io.Reader) {
	err := c.dispatch(r)
	c.mu.Lock()
	c.err = err
	lost := c.sinks
	c.sinks = nil
	c.mu.Unlock()
	for _, s := range lost {
		s.Lost(err)
	}
	close(c.done)
}

func (c *Client) dispatch(r io.Reader) error {
	for {
		f, err := ReadFrame(r)
		if err != nil {
			return err
		}
		if f.Kind == KindOpen {
			if err := c.accept(f.ID); err != nil {
				return err
			}
			continue
		}
		c.mu.Lock()
		sink := c.sinks[f.ID]
		if f.Kind == KindExited || f.Kind == KindDone {
			delete(c.sinks, f.ID)
		}
		c.mu.Unlock()
		if sink == nil {
			continue // the tail of a process nobody follows any more
		}
		if err := sink.Take(f); err != nil {
			sink.Lost(err) // it may be out of the table already
			return err
		}
	}
}

// Route takes a new id: every frame that carries it goes to the sink made for
// it, up to and with the one that ends the exchange.
func (c *Client) Route(sink func(id uint32) Sink) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sinks == nil {
		return 0, fmt.Errorf("connection to carboy-init is gone: %w", c.err)
	}
	if c.next+1 == FirstConn {
		return 0, errors.New("every id of the connection to carboy-init has been used")
	}
	c.next++
	c.sinks[c.next] = sink(c.next)
	return c.next, nil
}

// Forget ends a route; later frames with its id are dropped.
func (c *Client) Forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sinks, id)
}

// Send writes a frame as it is.
func (c *Client) Send(f Frame) error { return c.w.Write(f) }

// reply waits for the Done frame of one request.
type reply chan answer

type answer struct {
	done Done
	err  error
}

func (r reply) Take(f Frame) error {
	var done Done
	if f.Kind != KindDone {
		return fmt.Errorf("answer of kind %d: %w", f.Kind, ErrProtocol)
	}
	if err := f.Decode(&done); err != nil {
		return err
	}
	if done.Error != "" {
		r <- answer{err: fmt.Errorf("%q", done.Error)} // the image's text may be in it
		return nil
	}
	r <- answer{done: done}
	return nil
}

func (r reply) Lost(err error) {
	select {
	case r <- answer{err: fmt.Errorf("carboy-init went away: %w", err)}:
	default: // told already
	}
}

func (c *Client) ask(ctx context.Context, kind Kind, v any) (Done, error) {
	answered := make(reply, 1)
	id, err := c.Route(func(uint32) Sink { return answered })
	if err != nil {
		return Done{}, err
	}
	if err := c.w.WriteJSON(kind, id, v); err != nil {
		c.Forget(id)
		return Done{}, err
	}
	select {
	case a := <-answered:
		return a.done, a.err
	case <-ctx.Done():
		c.Forget(id)
		return Done{}, context.Cause(ctx)
	}
}

// Steer asks a supervisor for what a Steer answers. It fails with
// errdefs.ErrFailedPrecondition for one of a carboy that had no such thing.
func (c *Client) Steer(ctx context.Context, request, answer any) error {
	if c.peer.Minor < Minor {
		return fmt.Errorf("the supervisor is of another version of carboy (%.40q), which has no such command: %w", c.peer.Build, errdefs.ErrFailedPrecondition)
	}
	done, err := c.ask(ctx, KindSteer, request)
	if err != nil {
		return err
	}
	return json.Unmarshal(done.Answer, answer)
}

// Put writes a file inside the container. It fails after Seal.
func (c *Client) Put(ctx context.Context, f File) error {
	if _, err := c.ask(ctx, KindFile, f); err != nil {
		return fmt.Errorf("write %s in the container: %w", f.Path, err)
	}
	return nil
}

// Seal ends provisioning; only after it can commands be started.
func (c *Client) Seal(ctx context.Context, keep []int) error {
	if _, err := c.ask(ctx, KindSeal, Seal{Keep: keep}); err != nil {
		return fmt.Errorf("drop carboy-init's capabilities: %w", err)
	}
	return nil
}

// Hold makes carboy-init outlive the connection and refuse every command, so
// that a failed bring-up can be inspected.
func (c *Client) Hold(ctx context.Context) error {
	_, err := c.ask(ctx, KindHold, struct{}{})
	return err
}

// List returns the processes of the container, by number.
func (c *Client) List(ctx context.Context) ([]Listed, error) {
	done, err := c.ask(ctx, KindList, struct{}{})
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return done.Processes, nil
}

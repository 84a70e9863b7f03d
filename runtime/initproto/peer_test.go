package initproto

import (
	"bufio"
	"io"
	"net"
	"testing"
)

// peer is the other side of a client, played by a test frame by frame.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	w    *Writer
}

// newPeer shakes hands with a client. Everything has been closed when the test
// ends.
func newPeer(t *testing.T) (*peer, *Client) {
	t.Helper()
	ours, theirs := socketPair(t)
	p := &peer{t: t, conn: theirs, r: bufio.NewReader(theirs), w: NewWriter(theirs)}
	shaken := make(chan error, 1)
	go func() {
		_, err := Handshake(p.r, p.w)
		shaken <- err
	}()
	c, err := NewClient(ours, ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return p, c
}

// socketPair buffers as the real pipes do.
func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// next is the next frame, which has to be of a kind.
func (p *peer) next(kind Kind) Frame {
	p.t.Helper()
	f, err := ReadFrame(p.r)
	if err != nil {
		p.t.Fatalf("wait for a frame of kind %d: %v", kind, err)
	}
	if f.Kind != kind {
		p.t.Fatalf("a frame of kind %d, want %d", f.Kind, kind)
	}
	return f
}

// after is the next frame that is not of a kind.
func (p *peer) after(kind Kind) Frame {
	p.t.Helper()
	for {
		f, err := ReadFrame(p.r)
		if err != nil {
			p.t.Fatal(err)
		}
		if f.Kind != kind {
			return f
		}
	}
}

func (p *peer) send(kind Kind, id uint32, payload []byte) {
	p.t.Helper()
	if err := p.w.Write(Frame{Kind: kind, ID: id, Payload: payload}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) sendJSON(kind Kind, id uint32, v any) {
	p.t.Helper()
	if err := p.w.WriteJSON(kind, id, v); err != nil {
		p.t.Fatal(err)
	}
}

// echo is a fake carboy-init: each command returns its input as its output,
// within the windows. It ends with the connection.
func (p *peer) echo() {
	commands := map[uint32]*echoing{}
	for {
		f, err := ReadFrame(p.r)
		if err != nil {
			for _, e := range commands {
				e.out.Close()
			}
			return
		}
		switch e := commands[f.ID]; f.Kind {
		case KindStart:
			commands[f.ID] = newEchoing(p.w, f.ID)
		case KindStdin:
			if len(f.Payload) == 0 {
				e.in.Close()
			} else if err := e.in.Push(f.Payload); err != nil {
				p.t.Error(err)
			}
		case KindCredit:
			kind, n, err := f.Credit()
			if err != nil || kind != KindStdout {
				p.t.Errorf("credit for %d, %v", kind, err)
			}
			if err := e.out.Grant(n); err != nil {
				p.t.Error(err)
			}
		default:
			p.t.Errorf("frame of kind %d", f.Kind)
		}
	}
}

type echoing struct {
	in  *Inlet
	out *Outlet
}

func newEchoing(w *Writer, id uint32) *echoing {
	e := &echoing{NewInlet(w, KindStdin, id), NewOutlet(w, KindStdout, id)}
	go func() {
		if err := e.in.CopyTo(struct{ io.Writer }{e.out}); err == nil {
			_ = w.WriteJSON(KindExited, id, Exit{})
		}
	}()
	return e
}

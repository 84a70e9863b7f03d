package initproto

import (
	"errors"
	"io"
	"testing"
	"time"
)

// listening is a client that serves connections by serve, and its peer.
func listening(t *testing.T, serve func(*Conn)) (*peer, *Client) {
	t.Helper()
	p, c := newPeer(t)
	if serve == nil {
		return p, c
	}
	told := make(chan error, 1)
	go func() { told <- c.Listen(t.Context(), Listen{Path: "/run/s", Owner: "agent"}, serve) }()
	p.sendJSON(KindDone, p.next(KindListen).ID, Done{})
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	return p, c
}

// breached waits for the client to end the link.
func breached(t *testing.T, c *Client) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the link lives")
	}
	if err := c.Err(); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

func TestConnCarriesBothWays(t *testing.T) {
	p, _ := listening(t, func(c *Conn) { _, _ = io.Copy(c, c) })
	for i := range uint32(3 * MostConns) { // places are freed
		id := FirstConn + i
		p.send(KindOpen, id, nil)
		p.send(KindData, id, []byte("hello"))
		if f := p.after(KindCredit); f.Kind != KindData || f.ID != id || string(f.Payload) != "hello" {
			t.Fatalf("%+v", f)
		}
		p.send(KindClose, id, nil)
		if f := p.after(KindCredit); f.Kind != KindClose || f.ID != id {
			t.Fatalf("%+v", f)
		}
		p.send(KindData, id, []byte("late")) // no harm
	}
}

func TestConnWaitsForCredit(t *testing.T) {
	wrote := make(chan error, 1)
	p, _ := listening(t, func(c *Conn) {
		_, err := c.Write(make([]byte, 2*Window))
		wrote <- err
	})
	p.send(KindOpen, FirstConn, nil)
	for left := Window; left > overhead; {
		left -= len(p.next(KindData).Payload) + overhead
	}
	p.send(KindClose, FirstConn, nil)
	if err := <-wrote; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to a connection that is closed: %v", err)
	}
	p.next(KindClose)
}

func TestConnBreaches(t *testing.T) {
	idle := func(c *Conn) { <-c.Closed() }
	open := Frame{Kind: KindOpen, ID: FirstConn}
	many := func(n uint32) (all []Frame) {
		for i := range n {
			all = append(all, Frame{Kind: KindOpen, ID: FirstConn + i})
		}
		return all
	}
	full := Frame{Kind: KindData, ID: FirstConn, Payload: make([]byte, Chunk)}
	for name, tc := range map[string]struct {
		serve  func(*Conn)
		frames []Frame
	}{
		"nobody listens":        {nil, []Frame{open}},
		"an id of ours":         {idle, []Frame{{Kind: KindOpen, ID: 7}}},
		"twice":                 {idle, []Frame{open, open}},
		"too many":              {idle, many(MostConns + 1)},
		"closed, not confirmed": {func(*Conn) { select {} }, append(many(MostConns), Frame{Kind: KindClose, ID: FirstConn}, Frame{Kind: KindOpen, ID: FirstConn + MostConns})},
		"beyond the window":     {idle, append([]Frame{open}, bytesOf(full, Window/Chunk+2)...)},
		"credit from nowhere":   {idle, []Frame{open, creditFrame(KindData, FirstConn, 1)}},
		"an exit":               {idle, []Frame{open, {Kind: KindExited, ID: FirstConn, Payload: []byte(`{}`)}}},
		"output":                {idle, []Frame{open, {Kind: KindStdout, ID: FirstConn, Payload: []byte("x")}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, c := listening(t, tc.serve)
			for _, f := range tc.frames {
				p.send(f.Kind, f.ID, f.Payload)
			}
			breached(t, c)
		})
	}
}

func bytesOf(f Frame, n int) (all []Frame) {
	for range n {
		all = append(all, f)
	}
	return all
}

func TestListenOnce(t *testing.T) {
	_, c := listening(t, func(*Conn) {})
	if err := c.Listen(t.Context(), Listen{Path: "/run/other"}, func(*Conn) {}); err == nil {
		t.Error("a second listener")
	}
}

func TestConnEndsWithTheLink(t *testing.T) {
	read := make(chan string, 1)
	p, _ := listening(t, func(c *Conn) {
		b, _ := io.ReadAll(c)
		read <- string(b)
	})
	p.send(KindOpen, FirstConn, nil)
	p.send(KindData, FirstConn, []byte("last words"))
	_ = p.conn.Close()
	if text := <-read; text != "last words" {
		t.Errorf("read %q", text)
	}
}

// TestRelayedPeersCannotListen: a socket in the container is the supervisor's.
func TestRelayedPeersCannotListen(t *testing.T) {
	for _, kind := range []Kind{KindListen, KindOpen, KindData, KindClose} {
		_, c := newPeer(t)
		g, ended := guest(t, c, same)
		g.send(kind, FirstConn, []byte(`{}`))
		if err := <-ended; !errors.Is(err, ErrProtocol) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

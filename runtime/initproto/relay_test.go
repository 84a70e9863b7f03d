package initproto

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// guest is a peer of a relay, played frame by frame; ended is what the relay
// returned.
func guest(t *testing.T, c *Client, complete func(Spec) Spec) (g *peer, ended chan error) {
	t.Helper()
	near, far := socketPair(t)
	ended = make(chan error, 1)
	go func() {
		defer far.Close()
		ended <- c.Relay(t.Context(), far, complete, nil, nil)
	}()
	g = &peer{t: t, conn: near, r: bufio.NewReader(near), w: NewWriter(near)}
	if _, err := Handshake(g.r, g.w); err != nil {
		t.Fatal(err)
	}
	return g, ended
}

func same(s Spec) Spec { return s }

func TestRelayCarriesACommand(t *testing.T) {
	init, c := newPeer(t)
	go init.echo()
	near, far := socketPair(t)
	go func() { _ = c.Relay(t.Context(), far, same, nil, nil); far.Close() }()
	client, err := NewClient(near, near)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("text\n", 200_000)
	var out bytes.Buffer
	process, err := client.Start(Spec{}, Streams{Stdin: strings.NewReader(text), Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := process.Wait(t.Context()); err != nil || exit.Status() != 0 || out.String() != text {
		t.Errorf("%d bytes, %+v, %v", out.Len(), exit, err)
	}
}

func TestRelayCompletesACommandAndKeepsIDsApart(t *testing.T) {
	init, c := newPeer(t)
	own, err := c.Start(Spec{Args: []string{"own"}}, Streams{})
	if err != nil {
		t.Fatal(err)
	}
	ownID := init.next(KindStart).ID
	g, _ := guest(t, c, func(s Spec) Spec { s.User = "agent"; return s })
	g.sendJSON(KindStart, ownID, Spec{Args: []string{"guest"}}) // the same number, on purpose
	f := init.next(KindStart)
	var spec Spec
	if err := f.Decode(&spec); err != nil || spec.User != "agent" || spec.Args[0] != "guest" {
		t.Errorf("%+v, %v", spec, err)
	}
	if f.ID == ownID {
		t.Fatal("two commands with one id")
	}
	g.send(KindSignal, ownID, []byte{15})
	if s := init.next(KindSignal); s.ID != f.ID {
		t.Errorf("the guest's signal went to %d", s.ID)
	}
	init.send(KindStdout, f.ID, []byte("x"))
	if s := g.next(KindStdout); s.ID != ownID || string(s.Payload) != "x" {
		t.Errorf("output %+v", s)
	}
	init.sendJSON(KindExited, f.ID, Exit{Code: 3})
	g.next(KindExited)
	g.send(KindSignal, ownID, []byte{9}) // its command has ended: it reaches nobody
	g.sendJSON(KindStart, 5, Spec{})
	init.next(KindStart)
	select {
	case <-own.Ended():
		t.Error("the supervisor's own command ended")
	default:
	}
}

func TestRelayRefusesWhatIsNotAGuests(t *testing.T) {
	for name, breach := range map[string]func(g *peer){
		"a file":               func(g *peer) { g.sendJSON(KindFile, 1, File{Path: "/etc/passwd"}) },
		"a seal":               func(g *peer) { g.sendJSON(KindSeal, 1, Seal{}) },
		"a hold":               func(g *peer) { g.sendJSON(KindHold, 1, struct{}{}) },
		"an exit":              func(g *peer) { g.sendJSON(KindExited, 1, Exit{}) },
		"output":               func(g *peer) { g.send(KindStdout, 1, []byte("x")) },
		"a second greeting":    func(g *peer) { g.sendJSON(KindHello, 0, Hello{Version: Version}) },
		"a command not JSON":   func(g *peer) { g.send(KindStart, 1, []byte("[")) },
		"one id for two":       func(g *peer) { g.sendJSON(KindStart, 1, Spec{}); g.sendJSON(KindStart, 1, Spec{}) },
		"a frame without end":  func(g *peer) { _, _ = g.conn.Write([]byte{255, 255, 255, 255, byte(KindStdin), 0, 0, 0, 1}) },
		"a frame of no kind":   func(g *peer) { g.send(0, 1, nil) },
		"an unknown frame":     func(g *peer) { g.send(200, 1, nil) },
		"a reply to the agent": func(g *peer) { g.sendJSON(KindDone, 1, Done{}) },
		"no signal":            func(g *peer) { g.sendJSON(KindStart, 1, Spec{}); g.send(KindSignal, 1, nil) },
		"two signals":          func(g *peer) { g.sendJSON(KindStart, 1, Spec{}); g.send(KindSignal, 1, []byte{15, 9}) },
		"credit cut short":     func(g *peer) { g.sendJSON(KindStart, 1, Spec{}); g.send(KindCredit, 1, []byte{1, 2}) },
		"a size not JSON":      func(g *peer) { g.sendJSON(KindStart, 1, Spec{}); g.send(KindResize, 1, []byte("{")) },
	} {
		t.Run(name, func(t *testing.T) {
			init, c := newPeer(t)
			g, ended := guest(t, c, same)
			breach(g)
			if err := <-ended; !errors.Is(err, ErrProtocol) {
				t.Errorf("the relay ended with %v", err)
			}
			// The bottle goes on, and saw nothing of it but a command it hangs up.
			if err := c.Send(Frame{Kind: KindResize, ID: 1000, Payload: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
			for {
				f, err := ReadFrame(init.r)
				if err != nil {
					t.Fatal(err)
				}
				if f.Kind == KindResize {
					break
				}
				if f.Kind != KindStart && f.Kind != KindSignal && f.Kind != KindStdin {
					t.Errorf("a frame of kind %d got through", f.Kind)
				}
			}
		})
	}
}

// What has ended for the bottle may not be told to a guest that does not read.
func TestRelayCutsOffAGuestThatDoesNotRead(t *testing.T) {
	init, c := newPeer(t)
	g, ended := guest(t, c, same)
	g.sendJSON(KindStart, 1, Spec{})
	id := init.next(KindStart).ID
	sent := make(chan struct{})
	go func() { // a hostile agent has no window to respect
		defer close(sent)
		for {
			select {
			case <-c.Done():
				return
			default:
			}
			if init.w.Write(Frame{Kind: KindStdout, ID: id, Payload: make([]byte, Chunk)}) != nil {
				return
			}
		}
	}()
	if err := <-ended; err == nil {
		t.Error("a guest that does not read was left in peace")
	}
	// Its command is hung up, what it still says is taken, and the bottle goes on.
	if s := init.after(KindCredit); s.Kind != KindSignal || s.ID != id || s.Payload[0] != 1 {
		t.Errorf("%+v", s)
	}
	if s := init.after(KindCredit); s.Kind != KindStdin || len(s.Payload) != 0 {
		t.Errorf("%+v", s)
	}
	if s := init.next(KindCredit); s.ID != id {
		t.Errorf("%+v", s)
	}
	if err := c.Err(); err != nil {
		t.Errorf("the bottle's own connection ended: %v", err)
	}
	init.conn.Close()
	<-sent
}

func TestRelayHangsUpForAGuestThatHasGone(t *testing.T) {
	init, c := newPeer(t)
	g, ended := guest(t, c, same)
	g.sendJSON(KindStart, 1, Spec{})
	id := init.next(KindStart).ID
	g.conn.Close()
	if s := init.next(KindSignal); s.ID != id || s.Payload[0] != 1 {
		t.Errorf("%+v", s)
	}
	if s := init.next(KindStdin); s.ID != id || len(s.Payload) != 0 {
		t.Errorf("%+v", s)
	}
	if err := <-ended; err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	init.sendJSON(KindExited, id, Exit{}) // for nobody
}

func TestRelayTellsThatTheBottleEnded(t *testing.T) {
	init, c := newPeer(t)
	g, _ := guest(t, c, same)
	g.sendJSON(KindStart, 9, Spec{})
	init.next(KindStart)
	init.conn.Close()
	var exit Exit
	f := g.next(KindExited)
	if err := f.Decode(&exit); err != nil || f.ID != 9 || exit.Code != 125 || !strings.Contains(exit.Reason, io.EOF.Error()) {
		t.Errorf("%+v for %d, %v", exit, f.ID, err)
	}
}

package initproto

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTenMegabytesThroughAProcess(t *testing.T) {
	p, c := newPeer(t)
	go p.echo()
	data := make([]byte, 10<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	sum := sha256.New()
	process, err := c.Start(Spec{Args: []string{"cat"}}, Streams{Stdin: bytes.NewReader(data), Stdout: sum})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := process.Wait(t.Context())
	if err != nil || exit.Status() != 0 {
		t.Fatalf("%+v, %v", exit, err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("what came back is not what went in")
	}
}

// A stream that nobody reads must not hold up another.
func TestProcessesDoNotWaitForEachOther(t *testing.T) {
	p, c := newPeer(t)
	go p.echo()
	unread, w := io.Pipe()
	stuck, err := c.Start(Spec{Args: []string{"cat"}}, Streams{Stdin: bytes.NewReader(make([]byte, 4*Window)), Stdout: w})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	other, err := c.Start(Spec{Args: []string{"cat"}}, Streams{Stdin: strings.NewReader("text"), Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Wait(t.Context()); err != nil || out.String() != "text" {
		t.Errorf("%q, %v", out.String(), err)
	}
	select {
	case <-stuck.Ended():
		t.Error("the other one ended with its output unread")
	default:
	}
	if n, err := io.CopyN(io.Discard, unread, 4*Window); err != nil {
		t.Errorf("after %d bytes: %v", n, err)
	}
	if _, err := stuck.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartSendsWhatWasAsked(t *testing.T) {
	p, c := newPeer(t)
	process, err := c.Start(Spec{Args: []string{"id"}, Env: []string{"A=b"}, User: "u", TTY: true, Size: Size{24, 80}, Stdin: true}, Streams{})
	if err != nil {
		t.Fatal(err)
	}
	f := p.next(KindStart)
	var spec Spec
	if err := f.Decode(&spec); err != nil || spec.Args[0] != "id" || spec.Env[0] != "A=b" || spec.User != "u" || !spec.TTY || spec.Size.Cols != 80 {
		t.Errorf("%+v, %v", spec, err)
	}
	if spec.Stdin {
		t.Error("input was announced that nobody has")
	}
	if err := process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if s := p.next(KindSignal); s.ID != f.ID || !bytes.Equal(s.Payload, []byte{15}) {
		t.Errorf("signal %+v", s)
	}
	if err := process.Resize(Size{Rows: 3, Cols: 4}); err != nil {
		t.Fatal(err)
	}
	var size Size
	if err := p.next(KindResize).Decode(&size); err != nil || size != (Size{3, 4}) {
		t.Errorf("size %+v, %v", size, err)
	}
	p.sendJSON(KindExited, f.ID, Exit{Code: 127, Reason: "no such program"})
	if exit, err := process.Wait(t.Context()); err != nil || exit.Code != 127 || exit.Reason != "no such program" {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestRequests(t *testing.T) {
	p, c := newPeer(t)
	answer := func(kind Kind, text string) {
		f := p.next(kind)
		p.sendJSON(KindDone, f.ID, Done{Error: text})
	}
	go answer(KindFile, "")
	if err := c.Put(t.Context(), File{Path: "/a", Data: []byte("x")}); err != nil {
		t.Error(err)
	}
	go answer(KindFile, "read-only")
	if err := c.Put(t.Context(), File{Path: "/a"}); err == nil || err.Error() != `write /a in the container: "read-only"` {
		t.Error(err)
	}
	go answer(KindSeal, "no")
	if err := c.Seal(t.Context(), []int{1}); err == nil || !strings.Contains(err.Error(), "no") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if err := c.Hold(ctx); !errors.Is(err, cause) {
		t.Errorf("hold: %v", err)
	}
	f := p.next(KindHold)
	p.sendJSON(KindDone, f.ID, Done{}) // nobody waits for it: it must do no harm
	go answer(KindSeal, "")
	if err := c.Seal(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if err := c.Put(t.Context(), File{Data: make([]byte, MaxPayload)}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a file that fits no frame: %v", err)
	}
}

func TestBreachesEndTheConnection(t *testing.T) {
	full := make([]byte, Window)
	for name, breach := range map[string]func(p *peer, id uint32){
		"output beyond the window": func(p *peer, id uint32) { p.send(KindStdout, id, full) },
		"credit nobody used":       func(p *peer, id uint32) { p.send(KindCredit, id, creditFrame(KindStdin, id, 1).Payload) },
		"credit cut short":         func(p *peer, id uint32) { p.send(KindCredit, id, []byte{1}) },
		"a request from init":      func(p *peer, id uint32) { p.send(KindStart, id, []byte("{}")) },
		"input from init":          func(p *peer, id uint32) { p.send(KindStdin, id, []byte("x")) },
		"an unknown kind":          func(p *peer, id uint32) { p.send(99, id, nil) },
		"an exit that is not JSON": func(p *peer, id uint32) { p.send(KindExited, id, []byte("{")) },
		"an answer to a process":   func(p *peer, id uint32) { p.sendJSON(KindDone, id, Done{}) },
	} {
		t.Run(name, func(t *testing.T) {
			p, c := newPeer(t)
			process, err := c.Start(Spec{}, Streams{Stdin: neverRead{}})
			if err != nil {
				t.Fatal(err)
			}
			breach(p, p.next(KindStart).ID)
			<-c.Done()
			if !errors.Is(c.Err(), ErrProtocol) {
				t.Errorf("the connection ended with %v", c.Err())
			}
			if _, err := process.Wait(soon(t)); !errors.Is(err, ErrProtocol) {
				t.Errorf("the process ended with %v", err)
			}
			if _, err := c.Start(Spec{}, Streams{}); !errors.Is(err, ErrProtocol) {
				t.Errorf("a start afterwards: %v", err)
			}
		})
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// neverRead is an input that is at its end without a frame for it.
type neverRead struct{}

func (neverRead) Read([]byte) (int, error) { return 0, errors.New("no input") }

func TestFramesForNobodyAreDropped(t *testing.T) {
	p, c := newPeer(t)
	p.send(KindStdout, 77, make([]byte, 2*Window))
	p.sendJSON(KindExited, 78, Exit{})
	process, err := c.Start(Spec{}, Streams{})
	if err != nil {
		t.Fatal(err)
	}
	id := p.next(KindStart).ID
	p.sendJSON(KindExited, id, Exit{Signal: 9})
	p.send(KindStdout, id, []byte("after its end"))
	if exit, err := process.Wait(t.Context()); err != nil || exit.Status() != 137 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestLostConnection(t *testing.T) {
	p, c := newPeer(t)
	unread, w := io.Pipe()
	defer unread.Close()
	process, err := c.Start(Spec{}, Streams{Stdin: bytes.NewReader(make([]byte, 4*Window)), Stderr: w})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() { asked <- c.Put(t.Context(), File{Path: "/a"}) }()
	for kinds := 0; kinds < 2; { // both requests have arrived
		f, err := ReadFrame(p.r)
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind != KindStdin {
			kinds++
		}
	}
	p.conn.Close()
	if _, err := process.Wait(soon(t)); !gone(err) {
		t.Errorf("process: %v", err)
	}
	if err := <-asked; !gone(err) {
		t.Errorf("request: %v", err)
	}
	<-c.Done()
	if err := c.Err(); !gone(err) {
		t.Errorf("connection: %v", err)
	}
}

// gone is the end of a connection; a socket whose peer left input unread is reset.
func gone(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

package initproto

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// frames collects what an outlet sends.
func outlet() (*Outlet, chan Frame) {
	r, w := io.Pipe()
	sent := make(chan Frame, 1000)
	go func() {
		defer close(sent)
		for {
			f, err := ReadFrame(r)
			if err != nil {
				return
			}
			sent <- f
		}
	}()
	return NewOutlet(NewWriter(w), KindStdout, 1), sent
}

func TestOutletStopsAtItsWindow(t *testing.T) {
	for name, size := range map[string]int{"large writes": Window * 2, "single bytes": 1} {
		t.Run(name, func(t *testing.T) {
			o, sent := outlet()
			ended := make(chan error, 1)
			go func() {
				for {
					if _, err := o.Write(make([]byte, size)); err != nil {
						ended <- err
						return
					}
				}
			}()
			used := 0
			for used+overhead < Window {
				f := <-sent
				used += len(f.Payload) + overhead
				if len(f.Payload) == 0 || len(f.Payload) > Chunk {
					t.Fatalf("a chunk of %d bytes", len(f.Payload))
				}
			}
			if used > Window {
				t.Errorf("%d bytes under way", used)
			}
			// Exactly what is granted comes next, which shows that nothing else was.
			const more = 1000
			if err := o.Grant(more + overhead); err != nil {
				t.Fatal(err)
			}
			if f := <-sent; size > 1 && len(f.Payload) < more {
				t.Errorf("%d bytes after a credit of %d", len(f.Payload), more)
			}
			o.Close()
			if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("writer of a closed outlet: %v", err)
			}
		})
	}
}

func TestOutletRefusesCreditBeyondItsWindow(t *testing.T) {
	o, _ := outlet()
	for _, n := range []uint32{1, Window + 1, 1<<32 - 1} {
		if err := o.Grant(n); !errors.Is(err, ErrProtocol) {
			t.Errorf("%d on a full window: %v", n, err)
		}
	}
	if _, err := o.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := o.Grant(100 + overhead); err != nil {
		t.Errorf("credit for what was sent: %v", err)
	}
	if err := o.Grant(1); !errors.Is(err, ErrProtocol) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestInletTakesAWindowAndNoMore(t *testing.T) {
	for name, size := range map[string]int{"chunks": Chunk, "single bytes": 1, "empty": 0} {
		t.Run(name, func(t *testing.T) {
			in := NewInlet(NewWriter(io.Discard), KindStdout, 1)
			most := Window / (size + overhead)
			for i := range most {
				if err := in.Push(make([]byte, size)); err != nil {
					t.Fatalf("frame %d of %d: %v", i, most, err)
				}
			}
			if err := in.Push(make([]byte, size)); (err == nil) != (size == 0) || err != nil && !errors.Is(err, ErrProtocol) {
				t.Errorf("one frame more: %v", err)
			}
		})
	}
}

func TestInletAfterClose(t *testing.T) {
	in := NewInlet(NewWriter(io.Discard), KindStdout, 1)
	if err := in.Push([]byte("queued")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := in.Push([]byte("late")); err != nil {
		t.Error(err)
	}
	var got bytes.Buffer
	if err := in.CopyTo(&got); err != nil || got.String() != "queued" {
		t.Errorf("%q, %v", got.String(), err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

// The other side must never wait for a reader that has gone.
func TestInletOfAReaderThatHasGoneStillGivesCredit(t *testing.T) {
	var credits bytes.Buffer
	in := NewInlet(NewWriter(&credits), KindStdout, 1)
	for range 3 {
		if err := in.Push([]byte("text")); err != nil {
			t.Fatal(err)
		}
	}
	in.Close()
	if err := in.CopyTo(full{}); err == nil || err.Error() != "no space" {
		t.Errorf("the reader's error: %v", err)
	}
	granted := uint32(0)
	for credits.Len() > 0 {
		f, err := ReadFrame(&credits)
		if err != nil {
			t.Fatal(err)
		}
		_, n, _ := f.Credit()
		granted += n
	}
	if granted != 3*(4+overhead) {
		t.Errorf("credit for %d bytes", granted)
	}
}

package initproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
)

func TestFrameRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, f := range []Frame{
		{Kind: KindStdin, ID: 7, Payload: []byte("text")},
		{Kind: KindStdout, ID: 1<<32 - 1},
		{Kind: KindFile, Payload: bytes.Repeat([]byte("x"), MaxPayload)},
	} {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFrame(&buf)
		if err != nil || got.Kind != f.Kind || got.ID != f.ID || !bytes.Equal(got.Payload, f.Payload) {
			t.Errorf("%d bytes of kind %d: %v", len(got.Payload), got.Kind, err)
		}
	}
	if _, err := ReadFrame(&buf); !errors.Is(err, io.EOF) {
		t.Errorf("end of stream: %v", err)
	}
}

func TestFramesOverTheLimit(t *testing.T) {
	if err := NewWriter(io.Discard).Write(Frame{Payload: make([]byte, MaxPayload+1)}); !errors.Is(err, ErrProtocol) {
		t.Errorf("sent: %v", err)
	}
	for _, size := range []uint32{MaxPayload + 1, 1<<32 - 1} {
		head := append(binary.BigEndian.AppendUint32(nil, size), byte(KindStdout), 0, 0, 0, 1)
		if _, err := ReadFrame(bytes.NewReader(head)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%d bytes announced: %v", size, err)
		}
	}
}

func TestFramesCutOff(t *testing.T) {
	var buf bytes.Buffer
	if err := NewWriter(&buf).Write(Frame{Kind: KindStdout, ID: 1, Payload: []byte("text")}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < buf.Len(); n++ {
		_, err := ReadFrame(bytes.NewReader(buf.Bytes()[:n]))
		if err == nil || n < headerSize && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestWriterKeepsFramesWhole(t *testing.T) {
	r, pipe := io.Pipe()
	w := NewWriter(pipe)
	const writers, each = 8, 50
	var sent sync.WaitGroup
	for i := range writers {
		sent.Go(func() {
			for range each {
				_ = w.Write(Frame{Kind: KindStdout, ID: uint32(i), Payload: bytes.Repeat([]byte{byte(i)}, 100+i)})
			}
		})
	}
	go func() { sent.Wait(); pipe.Close() }()
	count := 0
	for {
		f, err := ReadFrame(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || !bytes.Equal(f.Payload, bytes.Repeat([]byte{byte(f.ID)}, 100+int(f.ID))) {
			t.Fatalf("frame of %d: %v", f.ID, err)
		}
		count++
	}
	if count != writers*each {
		t.Errorf("%d frames", count)
	}
}

func TestHandshake(t *testing.T) {
	hello := func(text string) string {
		var buf bytes.Buffer
		_ = NewWriter(&buf).Write(Frame{Kind: KindHello, Payload: []byte(text)})
		return buf.String()
	}
	other := Frame{Kind: KindStdout, Payload: []byte(`{"version":1}`)}
	var wrongKind bytes.Buffer
	_ = NewWriter(&wrongKind).Write(other)
	for name, tt := range map[string]struct {
		in, want string
		protocol bool
	}{
		"same version":  {hello(`{"version":1}`), "", false},
		"newer":         {hello(`{"version":2,"build":"next"}`), `of build "next" and speaks version 2, this one of "devel" speaks 1`, true},
		"none":          {hello(`{}`), "speaks version 0", true},
		"not JSON":      {hello(`x`), "frame of kind 1", true},
		"another frame": {wrongKind.String(), "first frame is of kind 10", true},
		"no protocol":   {"HTTP/1.1 400 Bad Request\r\n\r\n", "frame of", true},
		"nothing":       {"", "read version: EOF", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Handshake(strings.NewReader(tt.in), NewWriter(io.Discard))
			if (err == nil) != (tt.want == "") || errors.Is(err, ErrProtocol) != tt.protocol {
				t.Fatal(err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Error(err)
			}
		})
	}
}

func TestExitStatus(t *testing.T) {
	for e, want := range map[Exit]int{{}: 0, {Code: 42}: 42, {Signal: 9}: 137, {Code: 1, Signal: 15}: 143, {Code: 127, Reason: "x"}: 127} {
		if got := e.Status(); got != want {
			t.Errorf("%+v: %d", e, got)
		}
	}
}

func TestCredit(t *testing.T) {
	kind, n, err := creditFrame(KindStderr, 3, Window).Credit()
	if kind != KindStderr || n != Window || err != nil {
		t.Errorf("%d for %d, %v", n, kind, err)
	}
	for _, payload := range [][]byte{nil, {1}, {1, 2, 3, 4}, {1, 2, 3, 4, 5, 6}} {
		if _, _, err := (Frame{Payload: payload}).Credit(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%v: %v", payload, err)
		}
	}
}

package netns

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"carboy/netns/frames"
)

// TestTooManyTargets: none may be taken for another.
func TestTooManyTargets(t *testing.T) {
	if _, err := new(Network).Try(t.Context(), make([]netip.AddrPort, mostTargets+1), nil); err == nil {
		t.Error("more than can be told apart")
	}
	if last := 2*len(frames.Protocols)*mostTargets - 1; last != int(uint16(last)) {
		t.Errorf("the last index is %d", last)
	}
}

// TestEarIsNotFlooded: who sends more than is kept does not get by unheard.
func TestEarIsNotFlooded(t *testing.T) {
	here := func(f func() error) error { return f() }
	e, err := newEar(t.Context(), netip.MustParseAddr("127.0.0.1"), here)
	must(t, err)
	defer e.Close()
	conn, err := net.Dial("udp4", e.At.String())
	must(t, err)
	defer conn.Close()
	payload := []byte("what would not be kept any more")
	for i, deadline := 0, time.Now().Add(10*time.Second); e.Arrived(payload) == 0; i++ {
		if time.Now().After(deadline) {
			t.Fatal("nothing was heard")
		}
		_, err := conn.Write(strconv.AppendInt(nil, int64(i), 10))
		must(t, err)
	}
}

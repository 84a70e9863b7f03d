package initproto

import (
	"bufio"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"carboy/runtime/version"
)

// steered is a peer of a relay whose supervisor answers with what it was asked.
func steered(t *testing.T, steer Steer) *Client {
	t.Helper()
	_, c := newPeer(t)
	near, far := socketPair(t)
	go func() { _ = c.Relay(t.Context(), far, same, nil, steer); far.Close() }()
	client, err := NewClient(near, near)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestSteer(t *testing.T) {
	client := steered(t, func(_ context.Context, request []byte) []byte { return request })
	var answer struct{ Word string }
	if err := client.Steer(t.Context(), map[string]string{"word": "hello"}, &answer); err != nil || answer.Word != "hello" {
		t.Errorf("%+v, %v", answer, err)
	}
	if err := steered(t, nil).Steer(t.Context(), struct{}{}, &answer); err == nil || !strings.Contains(err.Error(), "answers nothing") {
		t.Errorf("%v", err)
	}
}

// What is too long for a frame is said, and does not leave the peer waiting.
func TestSteerAnswersTooMuch(t *testing.T) {
	client := steered(t, func(context.Context, []byte) []byte { return []byte(`"` + strings.Repeat("x", MaxPayload) + `"`) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := client.Steer(ctx, struct{}{}, nil); err == nil || ctx.Err() != nil {
		t.Errorf("%v", err)
	}
}

// An older supervisor is not sent what it would cut its peer off for.
func TestSteerOfAnOlderSupervisor(t *testing.T) {
	near, far := socketPair(t)
	go older(far)
	client, err := NewClient(near, near)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Steer(t.Context(), struct{}{}, nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), `("old")`) {
		t.Errorf("%v", err)
	}
	if _, err := client.List(t.Context()); err != nil {
		t.Errorf("the rest does not work: %v", err)
	}
}

// older knows no minor version, and lists processes.
func older(conn net.Conn) {
	w, in := NewWriter(conn), bufio.NewReader(conn)
	if w.WriteJSON(KindHello, 0, map[string]any{"version": Version, "build": "old"}) != nil {
		return
	}
	for {
		f, err := ReadFrame(in)
		if err != nil {
			return
		}
		if f.Kind == KindList {
			_ = w.WriteJSON(KindDone, f.ID, Done{})
		}
	}
}

// The build that both sides tell is for people.
func TestMinorIsTold(t *testing.T) {
	if c := steered(t, nil); c.peer.Minor != Minor || c.Build() != version.Build {
		t.Errorf("%+v", c.peer)
	}
}

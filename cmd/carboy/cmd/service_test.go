package cmd

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// notified is a socket as systemd listens on, and reads what comes next.
func notified(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 1024)
		n, err := conn.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
}

func TestServiceTellsOfSignals(t *testing.T) {
	next := notified(t)
	ctx, signal := context.WithCancel(t.Context())
	err := (&runFlags{}).asService(ctx, "box", func() error {
		if got := next(); got != "STATUS=bringing up box" {
			t.Errorf("at the begin: %q", got)
		}
		signal()
		if got := next(); got != "STOPPING=1\nSTATUS=ending the agent" {
			t.Errorf("after a signal: %q", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestKeepAlive(t *testing.T) {
	next := notified(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, signal := context.WithCancel(t.Context())
	stop := keepAlive(ctx)
	signal() // which does not end it
	for range 3 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	stop()
}

package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"carboy/runtime/initproto"
)

// echoSocket is a socket whose connections the test serves.
func echoSocket(t *testing.T) string {
	t.Helper()
	c, _, _ := spawn(t)
	path := filepath.Join(t.TempDir(), "deep", "socket")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil { // the image's, and replaced
		t.Fatal(err)
	}
	l := initproto.Listen{Path: path, Owner: "65534:65534"}
	if err := c.Listen(t.Context(), l, func(conn *initproto.Conn) { _, _ = io.Copy(conn, conn) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Seal(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func echoes(t *testing.T, conn net.Conn) {
	t.Helper()
	data := make([]byte, 300_000) // more than a window
	go func() { _, _ = conn.Write(data) }()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(conn, data); err != nil {
		t.Errorf("echo: %v", err)
	}
}

func TestListenIsForOneUser(t *testing.T) {
	path := echoSocket(t)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if owner := st.Sys().(*syscall.Stat_t); st.Mode() != os.ModeSocket|0o600 || owner.Uid != 65534 || owner.Gid != 65534 {
		t.Errorf("%v of %d:%d", st.Mode(), owner.Uid, owner.Gid)
	}
	conn := dialSocket(t, path)
	defer conn.Close()
	echoes(t, conn)
}

func dialSocket(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestListenTakesTurns: those beyond the bound wait, and connections that are
// opened and closed at once use nothing up.
func TestListenTakesTurns(t *testing.T) {
	path := echoSocket(t)
	for range 200 {
		_ = dialSocket(t, path).Close()
	}
	var all sync.WaitGroup
	for range 3 * initproto.MostConns {
		all.Go(func() {
			conn := dialSocket(t, path)
			echoes(t, conn)
			_ = conn.Close()
		})
	}
	all.Wait()
}

func TestListenEndsWithTheServer(t *testing.T) {
	c, _, _ := spawn(t)
	path := filepath.Join(t.TempDir(), "socket")
	if err := c.Listen(t.Context(), initproto.Listen{Path: path, Owner: "0"}, func(conn *initproto.Conn) {
		_, _ = io.WriteString(conn, "bye")
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 * initproto.MostConns {
		conn := dialSocket(t, path)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if b, err := io.ReadAll(conn); string(b) != "bye" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		_ = conn.Close()
	}
}

func TestNoListenerAfterSeal(t *testing.T) {
	c := sealed(t)
	path := filepath.Join(t.TempDir(), "socket")
	if err := c.Listen(t.Context(), initproto.Listen{Path: path, Owner: "0"}, func(*initproto.Conn) {}); err == nil {
		t.Error("a socket was opened after the seal")
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("it is there")
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/verify/inside"
)

// TestAttempts: what answers was reached, be it by a refusal.
func TestAttempts(t *testing.T) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	open := tcp.Addr().(*net.TCPAddr).AddrPort()
	udp, err := net.ListenPacket("udp4", open.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	shut := netip.MustParseAddrPort("127.0.0.1:1") // tcpmux: nobody has it
	e := inside.Errand{Targets: []netip.AddrPort{open, shut}, Payload: []byte("hello")}
	start := time.Now()
	reached := map[string]bool{}
	made, err := attempts(e, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range made {
		if a.Protocol != "icmp" { // which takes a privilege
			reached[a.Protocol+" "+a.To.String()] = a.Reached
		}
	}
	want := map[string]bool{"tcp " + open.String(): true, "tcp " + shut.String(): true, "udp " + open.String(): false, "udp " + shut.String(): true}
	for what, is := range want {
		if reached[what] != is {
			t.Errorf("%s: reached %v", what, reached[what])
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	got := make([]byte, 16)
	if n, _, err := udp.ReadFrom(got); err != nil || string(got[:n]) != "hello" {
		t.Errorf("by UDP came %q, %v", got[:n], err)
	}
}

// TestAttemptsWithoutRoom: what was not tried proves nothing.
func TestAttemptsWithoutRoom(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	made, err := attempts(inside.Errand{Targets: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}, time.Millisecond)
	if restored := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); restored != nil {
		t.Fatal(restored)
	}
	if !errors.Is(err, unix.EMFILE) || made != nil {
		t.Errorf("%v, %v", made, err)
	}
}

func TestErrand(t *testing.T) {
	proxy, asked := proxied(t, keeps("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n"))
	errand, err := json.Marshal(inside.Errand{Proxy: netip.MustParseAddrPort(proxy), Denied: "bad.test:443"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := verify(bytes.NewReader(errand), &out); err != nil {
		t.Fatal(err)
	}
	var a inside.Account
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if r := <-asked; r.RequestURI != "bad.test:443" || !a.Denied.Said || a.Denied.Open || !strings.Contains(a.Denied.Error, "403") || a.Allowed.Open {
		t.Errorf("asked for %s: %+v, %+v", r.RequestURI, a.Denied, a.Allowed)
	}
	if a.UID != os.Getuid() || len(a.Processes) == 0 || len(a.Links) == 0 || len(a.Raw) == 0 {
		t.Errorf("it saw %+v", a)
	}
	for _, text := range []string{"", "x", `{"targets": ["x"]}`} {
		if verify(strings.NewReader(text), &out) == nil {
			t.Errorf("an errand %q", text)
		}
	}
}

func TestKernelsLines(t *testing.T) {
	r, err := route(strings.Fields("eth0 0000420A 0100420A 0003 0 0 0 FCFFFFFF 0 0 0"))
	if err != nil || r != netip.MustParsePrefix("10.66.0.0/30") {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := route([]string{"eth0"}); err == nil {
		t.Error("half a route")
	}
	at, kind := mount(strings.Fields(`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw`))
	if at != "/mnt 2" || kind != "ext3" {
		t.Errorf("%q of kind %q", at, kind)
	}
	if at, _ := mount([]string{"36", "-"}); at != "" {
		t.Errorf("half a mount: %q", at)
	}
}

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// connect asks the proxy for a tunnel to a host and port and carries in and out
// through it, as ssh's ProxyCommand does. It runs as a command of the agent's,
// with no more rights than that has.
func connect(args []string, in io.Reader, out io.Writer) error {
	const usage = "usage: connect PROXY:PORT HOST PORT"
	if len(args) != 3 {
		return errors.New(usage)
	}
	proxy, err := netip.ParseAddrPort(args[0])
	if err != nil || !proxy.Addr().Is4() {
		return errors.New(usage)
	}
	target := args[1] + ":" + args[2]
	if strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("not a host and a port: %q", target)
	}
	tunnel, err := dial(proxy, patience)
	if err != nil {
		return fmt.Errorf("proxy %s: %w", proxy, err)
	}
	defer tunnel.Close()
	rest, err := open(tunnel, target)
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return carry(tunnel, rest, in, out)
}

// Bounds of the proxy's answer: the engines give up a target after 20 s at most.
const (
	patience    = 30 * time.Second
	explainTime = time.Second // for a refusal's reason, whose end may be never
	longestHead = 16 << 10    // bytes
	longestWhy  = 200         // bytes
)

// dial begins a connection: the first write waits for it. It uses no package net,
// which would make every bottle's first process larger.
func dial(to netip.AddrPort, answerWithin time.Duration) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	f := os.NewFile(uintptr(fd), "the proxy")
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, errors.Join(err, f.Close())
	}
	return f, f.SetDeadline(time.Now().Add(answerWithin))
}

// open returns what follows the proxy's answer, which may hold the target's
// first words.
func open(tunnel *os.File, target string) (io.Reader, error) {
	if _, err := fmt.Fprintf(tunnel, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		return nil, err
	}
	answer := bufio.NewReaderSize(tunnel, longestHead)
	status, length, err := readHead(answer)
	if err != nil {
		return nil, fmt.Errorf("the proxy's answer: %w", err)
	}
	if !accepts(status) {
		_ = tunnel.SetDeadline(time.Now().Add(explainTime)) // as it could be set before
		reason, _ := io.ReadAll(io.LimitReader(answer, min(length, longestWhy)))
		return nil, &refusal{status, string(bytes.TrimSpace(reason))}
	}
	return answer, tunnel.SetDeadline(time.Time{})
}

// accepts: any 2xx opens a tunnel (RFC 9110, 9.3.6).
func accepts(status string) bool {
	version, code, _ := strings.Cut(status, " ")
	code, _, _ = strings.Cut(code, " ")
	return strings.HasPrefix(version, "HTTP/1.") && len(code) == 3 && code[0] == '2'
}

// readHead also returns how much of a text follows that a kept connection does
// not end, or the largest number.
func readHead(r *bufio.Reader) (status string, length int64, err error) {
	length = math.MaxInt64
	status, err = readLine(r)
	for line := status; err == nil && line != ""; {
		line, err = readLine(r)
		name, value, _ := strings.Cut(line, ":")
		if n, bad := strconv.ParseUint(strings.TrimSpace(value), 10, 63); bad == nil && strings.EqualFold(name, "Content-Length") {
			length = int64(n)
		}
	}
	return status, length, err
}

// refusal is what a proxy says instead of opening a tunnel.
type refusal struct{ status, reason string }

func (r *refusal) Error() string { return fmt.Sprintf("the proxy refuses: %q %q", r.status, r.reason) }

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

// carry ends when the far end has nothing more to say.
func carry(tunnel *os.File, rest io.Reader, in io.Reader, out io.Writer) error {
	go func() {
		_, _ = io.Copy(tunnel, in) // the other direction tells
		_ = shutWrite(tunnel)
	}()
	_, err := io.Copy(out, rest)
	return err
}

func shutWrite(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) }) // it may be gone
}

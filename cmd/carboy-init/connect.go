package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

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
	tunnel, err := dial(proxy, unix.Timeval{})
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

// dial uses no package net, which would make every bottle's first process larger.
// It and each read wait for as long as patience says, without one for ever.
func dial(to netip.AddrPort, patience unix.Timeval) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), to.String())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &patience); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// longestHead bounds the proxy's answer, in bytes.
const longestHead = 16 << 10

// open returns what follows the proxy's answer, which may hold the target's
// first words.
func open(tunnel io.ReadWriter, target string) (io.Reader, error) {
	if _, err := fmt.Fprintf(tunnel, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		return nil, err
	}
	answer := bufio.NewReaderSize(tunnel, longestHead)
	status, err := readLine(answer)
	if err != nil {
		return nil, err
	}
	length := int64(longestReason) // of a body that goes on to the end
	for line := "-"; line != ""; {
		if line, err = readLine(answer); err != nil {
			return nil, err
		}
		if n, ok := contentLength(line); ok {
			length = min(n, longestReason)
		}
	}
	version, code, _ := strings.Cut(status, " ")
	if !strings.HasPrefix(version, "HTTP/1.") || !strings.HasPrefix(code, "200") {
		reason, _ := io.ReadAll(io.LimitReader(answer, length)) // there may be none
		return nil, &refusal{status, string(bytes.TrimSpace(reason))}
	}
	return answer, nil
}

// longestReason bounds what is shown of one, in bytes.
const longestReason = 200

// contentLength: a proxy may keep the connection open after its refusal.
func contentLength(line string) (n int64, ok bool) {
	name, value, _ := strings.Cut(line, ":")
	if !strings.EqualFold(name, "Content-Length") {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return n, err == nil && n >= 0
}

// refusal is what a proxy says instead of opening a tunnel.
type refusal struct{ status, reason string }

func (r *refusal) Error() string { return fmt.Sprintf("the proxy refuses: %q %q", r.status, r.reason) }

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", fmt.Errorf("the proxy's answer: %w", err)
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// carry ends when the far end has nothing more to say.
func carry(tunnel *os.File, rest io.Reader, in io.Reader, out io.Writer) error {
	go func() {
		_, _ = io.Copy(tunnel, in) // the other direction tells
		_ = unix.Shutdown(int(tunnel.Fd()), unix.SHUT_WR)
	}()
	_, err := io.Copy(out, rest)
	return err
}

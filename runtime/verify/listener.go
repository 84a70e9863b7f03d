package verify

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// listener: what listens in the proxy's namespace does so for the agent at its
// one address, or on the loopback, which no link leads to.
func (c Container) listener() error {
	var found bool
	var errs []error
	for _, kind := range []struct{ file, state string }{
		{"tcp", "0A"}, {"tcp6", "0A"}, {"udp", "07"}, {"udp6", "07"}, // listening, unconnected (include/net/tcp_states.h)
	} {
		all, err := bound(fmt.Sprintf("/proc/%d/net/%s", c.Proxy, kind.file), kind.state)
		if err != nil {
			return fmt.Errorf("sockets of the proxy: %w", err)
		}
		found = found || kind.file == "tcp" && slices.Contains(all, c.Listen)
		for _, at := range all {
			if !at.Addr().IsLoopback() && (at != c.Listen || kind.file != "tcp") {
				errs = append(errs, fmt.Errorf("something listens at %s %s", kind.file, at))
			}
		}
	}
	if !found {
		errs = append(errs, fmt.Errorf("nothing listens at %s", c.Listen))
	}
	return errors.Join(errs...)
}

// bound are the addresses of sockets in a state (proc_pid_net(5)).
func bound(file, state string) (all []netip.AddrPort, err error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without IPv6
	}
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		const local, at = 1, 3
		fields := strings.Fields(line)
		if i == 0 || len(fields) <= at || fields[at] != state {
			continue
		}
		one, err := socketAddr(fields[local])
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// socketAddr reads words in the host's order, and a port.
func socketAddr(text string) (at netip.AddrPort, err error) {
	words, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(words)
	if err != nil {
		return at, err
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return at, fmt.Errorf("not a socket's address: %q", text)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/containerd/errdefs"
)

// resolvedConf lists the servers behind systemd-resolved's stub.
const resolvedConf = "/run/systemd/resolve/resolv.conf"

// Resolvers reads the servers that a proxy can ask from a resolv.conf: IPv4,
// and not the host's loopback, which is another one in the proxy's namespace.
func Resolvers(path string) ([]netip.Addr, error) {
	for _, file := range []string{path, resolvedConf} {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read resolvers: %w", err)
		}
		if servers := usable(string(b)); len(servers) > 0 {
			return servers, nil
		}
	}
	return nil, fmt.Errorf("%s names no resolver that a bottle's proxy can reach (IPv4, not loopback): name one with --dns: %w", path, errdefs.ErrFailedPrecondition)
}

func usable(text string) []netip.Addr {
	var servers []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && a.Is4() && !a.IsLoopback() {
			servers = append(servers, a)
		}
	}
	return servers
}

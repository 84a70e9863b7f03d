package uplink

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"carboy/netns/sysctl"
)

// forwarding is what the host's forwarding was before the first bottle: ptp
// turns it on, and the last bottle puts it back. On a host that does not route
// it holds more than one value, because the kernel's switch also sets each
// link's own and whether redirects are accepted (net/ipv4/devinet.c,
// inet_forward_change).
type forwarding map[string]string

func readForwarding() (forwarding, error) {
	f := forwarding{}
	if err := f.read(sysctl.Forward); err != nil || f.router() {
		return f, err
	}
	links, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/forwarding")
	if err != nil {
		return nil, err
	}
	for _, path := range append(links, "/proc/sys/net/ipv4/conf/all/accept_redirects") {
		key := strings.TrimPrefix(path, "/proc/sys/")
		if err := f.read(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return f, nil
}

func (f forwarding) read(key string) (err error) {
	value, err := sysctl.Get(key)
	if err == nil {
		f[key] = value
	}
	return err
}

// turnOnForwarding is for the time before a link is made, under the lock. ptp
// turns it on as well, and then changes nothing. When two do so at once, the
// kernel can take each for the other and leave the links' own switches off, for
// good (devinet_sysctl_forward, which puts the old value back while it waits).
func turnOnForwarding() error {
	if now, err := sysctl.Get(sysctl.Forward); err != nil || now == "1" {
		return err
	}
	return sysctl.Set(sysctl.Forward, "1")
}

// router says whether the host forwarded packets before the first bottle.
func (f forwarding) router() bool { return f[sysctl.Forward] == "1" }

func (f forwarding) String() string {
	b, _ := json.Marshal(f) // strings only
	return string(b)
}

// forwarding is as the first bottle found it.
func (s Shared) forwarding() (f forwarding, err error) {
	b, err := os.ReadFile(s.sysctlFile())
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", s.sysctlFile(), err)
	}
	return f, nil
}

// restore changes nothing on a router. The switch comes first, as it sets the
// others.
func (f forwarding) restore() error {
	if f.router() {
		return nil
	}
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(f)), func(key string) bool { return key == sysctl.Forward })
	for _, key := range append([]string{sysctl.Forward}, keys...) {
		now, err := sysctl.Get(key)
		if err == nil && now != f[key] {
			err = sysctl.Set(key, f[key])
		}
		if err := ignoreAbsent(err); err != nil { // the link has gone
			return err
		}
	}
	return nil
}

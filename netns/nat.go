package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// natTable is the one table on the host, for all bottles. The first bottle
// makes it, the last removes it; nothing in it names a bottle.
var natTable = &nftables.Table{Name: "carboy", Family: nftables.TableFamilyIPv4}

// shared is what all bottles of a host share, below the state directory. Its
// lock is held for whole changes: who enters is counted before the table is
// looked for, so the last to leave never takes it from one who has just come.
type shared struct{ dir string }

func (r Record) shared() shared { return shared{filepath.Join(r.StateDir, "egress")} }

func (s shared) usersDir() string            { return filepath.Join(s.dir, "users") }
func (s shared) user(instance string) string { return filepath.Join(s.usersDir(), instance) }
func (s shared) rangeFile() string           { return filepath.Join(s.dir, "range") }
func (s shared) forwardFile() string         { return filepath.Join(s.dir, "ip_forward") }

const forwardKey = "net/ipv4/ip_forward"

// locked runs f while no other bottle changes what is shared.
func (s shared) locked(ctx context.Context, f func() error) (err error) {
	if err := os.MkdirAll(s.usersDir(), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lock of the egress network: %w", context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
	return f()
}

func (s shared) users() ([]string, error) {
	entries, err := os.ReadDir(s.usersDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// enterNAT counts this bottle in and makes what all share where it is missing.
func (n *Network) enterNAT(ctx context.Context) error {
	s := n.record.shared()
	return s.locked(ctx, func() error {
		users, err := s.users()
		if err != nil {
			return err
		}
		if len(users) > 0 {
			if used, err := s.readRange(); err != nil || used != n.Range {
				return errors.Join(fmt.Errorf("other bottles took the range %s meanwhile: try again", used), err)
			}
		}
		if err := os.WriteFile(s.user(n.Instance), nil, 0o600); err != nil {
			return err
		}
		if len(users) == 0 {
			if err := s.remember(n.Range); err != nil {
				return err
			}
		}
		return n.ensureHost(s)
	})
}

// remember writes down what the last bottle puts back.
func (s shared) remember(used netip.Prefix) error {
	before, err := getSysctl(forwardKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.rangeFile(), []byte(used.String()), 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(s.forwardFile()); err == nil {
		return nil // left by a bottle that was killed: the older value is the host's
	}
	return os.WriteFile(s.forwardFile(), []byte(before), 0o600)
}

func (s shared) readRange() (netip.Prefix, error) {
	b, err := os.ReadFile(s.rangeFile())
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(string(b))
}

// wasRouter says whether the host forwarded packets before the first bottle.
func (s shared) wasRouter() (bool, error) {
	b, err := os.ReadFile(s.forwardFile())
	return string(b) == "1", err
}

// ensureHost makes the table, the accepting rules of foreign firewalls and
// forwarding, each where it is missing.
func (n *Network) ensureHost(s shared) error {
	present, err := tablePresent()
	if err != nil {
		return err
	}
	if !present {
		router, err := s.wasRouter()
		if err != nil {
			return err
		}
		if err := n.writeTable(router); err != nil {
			return fmt.Errorf("write nftables table: %w", err)
		}
	}
	if err := acceptInForeignFirewall(n.Range); err != nil {
		return err
	}
	if now, err := getSysctl(forwardKey); err != nil || now == "1" {
		return err
	}
	return setSysctl(forwardKey, "1")
}

func tablePresent() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("list nftables chains: %w", err)
	}
	found := 0
	for _, chain := range chains {
		if chain.Table.Name == natTable.Name {
			found++
		}
	}
	return found == len(hostChains), nil
}

var hostChains = []string{"postrouting", "forward", "input"}

// writeTable replaces the table in one transaction.
func (n *Network) writeTable(router bool) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(natTable) // so that there is one to delete
	c.DelTable(natTable)
	write(c, natTable, hostTable(n.Range, n.localResolvers(addrs), router))
	return c.Flush()
}

// localResolvers are those that are addresses of this host: dnsmasq or unbound
// on a bridge, say.
func (n *Network) localResolvers(addrs []net.Addr) []netip.Addr {
	var local []netip.Addr
	for _, r := range n.Resolvers {
		if slices.ContainsFunc(addrs, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && p.Addr() == r
		}) {
			local = append(local, r)
		}
	}
	return local
}

// hostTable lets the range out and nothing in: not to each other, not to the
// host itself, not to link-local services such as a cloud's metadata.
func hostTable(used netip.Prefix, resolvers []netip.Addr, router bool) []chain {
	forward := []words{
		rule(source(used), dest(used), drop()),
		rule(source(used), dest(linkLocal), drop()),
		rule(dest(used), unknown(), drop()),
		rule(source(used), clampMSS()),
	}
	if !router {
		// ip_forward is on for the bottles' sake only.
		forward = append(forward, rule(notSource(used), notDest(used), drop()))
	}
	input := []words{rule(source(used), known(), accept())}
	for _, r := range resolvers {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			input = append(input, rule(source(used), dest(host(r)), port(protocol, 53), accept()))
		}
	}
	input = append(input, rule(source(used), drop()))
	early := nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 1)
	base := func(name string, hook *nftables.ChainHook, rules []words) chain {
		return chain{name: name, kind: nftables.ChainTypeFilter, hook: hook, priority: early, policy: nftables.ChainPolicyAccept, rules: rules}
	}
	return []chain{
		{name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: nftables.ChainPriorityNATSource,
			policy: nftables.ChainPolicyAccept, rules: []words{rule(source(used), notDest(used), words{&expr.Masq{}})}},
		base("forward", nftables.ChainHookForward, forward),
		base("input", nftables.ChainHookInput, input),
	}
}

// leaveNAT counts the bottle out; the last one restores the host.
func (r Record) leaveNAT(ctx context.Context) error {
	s := r.shared()
	return s.locked(ctx, func() error {
		if err := os.Remove(s.user(r.Instance)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		users, err := s.users()
		if err != nil || len(users) > 0 {
			return err
		}
		return s.restoreHost()
	})
}

func (s shared) restoreHost() error {
	used, err := s.readRange()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nobody came as far as making anything
	}
	if err != nil {
		return err
	}
	before, err := os.ReadFile(s.forwardFile())
	if err != nil {
		return err
	}
	if err := errors.Join(deleteTable(), removeFromForeignFirewall(used), setSysctl(forwardKey, string(before))); err != nil {
		return fmt.Errorf("restore the host: %w", err)
	}
	return errors.Join(os.RemoveAll(filepath.Join(s.dir, "ipam")), os.Remove(s.rangeFile()), os.Remove(s.forwardFile()))
}

func deleteTable() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(natTable) // deleting one that somebody flushed is no error
	c.DelTable(natTable)
	return c.Flush()
}

// Reassert puts back what bottles need of the host's rules, where a foreign
// tool has flushed them. The seal itself does not rest on it.
func (n *Network) Reassert(ctx context.Context) error {
	if !n.record.Own {
		return nil
	}
	s := n.record.shared()
	return s.locked(ctx, func() error { return n.ensureHost(s) })
}

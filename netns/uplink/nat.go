package uplink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"carboy/netns/nft"
	"carboy/netns/sysctl"
)

// natTable is the one table on the host, for all bottles. The first bottle
// makes it, the last removes it; nothing in it names a bottle.
var natTable = &nftables.Table{Name: "carboy", Family: nftables.TableFamilyIPv4}

// linkLocal is where clouds serve their metadata.
var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// Enter counts a bottle in and makes what all share where it is missing. The
// instance is a plain file name, the range one that ChooseRange gave, and
// resolvers that are this host's may answer to it. After an error call Leave.
func (s Shared) Enter(ctx context.Context, instance string, used netip.Prefix, resolvers []netip.Addr) error {
	return s.locked(ctx, func() error {
		users, err := s.users()
		if err != nil {
			return err
		}
		if len(users) == 0 {
			err = s.first(used)
		} else {
			err = s.agree(used)
		}
		if err != nil {
			return err
		}
		if err := s.put(s.user(instance), resolverText(resolvers)); err != nil {
			return err
		}
		if err := s.ensure(); err != nil {
			return err
		}
		return turnOnForwarding()
	})
}

func resolverText(resolvers []netip.Addr) string {
	var text strings.Builder
	for _, r := range resolvers {
		fmt.Fprintln(&text, r)
	}
	return text.String()
}

// first writes down what the last bottle puts back. All of it is there before
// the first bottle is counted.
func (s Shared) first(used netip.Prefix) error {
	if err := s.restoreHost(); err != nil { // of a last one that was killed
		return err
	}
	before, err := readForwarding()
	if err != nil {
		return err
	}
	if err := s.put(s.sysctlFile(), before.String()); err != nil {
		return err
	}
	return s.put(s.rangeFile(), used.String())
}

func (s Shared) agree(used netip.Prefix) error {
	now, err := s.readRange()
	if err != nil {
		return err
	}
	if now != used {
		return fmt.Errorf("bottles that came up meanwhile use the egress range %s, not %s: try again", now, used)
	}
	return nil
}

// ensure makes the table and the accepting rules in foreign firewalls, each
// where it is missing or is not as written.
func (s Shared) ensure() error {
	used, err := s.readRange()
	if err != nil {
		return err
	}
	before, err := s.forwarding()
	if err != nil {
		return err
	}
	resolvers, err := s.resolvers()
	if err != nil {
		return err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("addresses of the host: %w", err)
	}
	table := hostTable(used, onHost(resolvers, addrs), before.router())
	if err := assertTable(table); err != nil {
		return fmt.Errorf("nftables table %s: %w", natTable.Name, err)
	}
	return s.acceptInForeignFirewalls(used)
}

// assertTable does nothing where the table is as wanted, else replaces it.
func assertTable(want []nft.Chain) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if nft.Diff(c, natTable, want) == nil {
		return nil
	}
	return nft.Replace(c, natTable, want)
}

// onHost are the resolvers that are addresses of this host: dnsmasq or unbound
// on a bridge, say. Sorted, each once.
func onHost(resolvers []netip.Addr, addrs []net.Addr) []netip.Addr {
	var local []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && slices.Contains(resolvers, p.Addr()) {
			local = append(local, p.Addr())
		}
	}
	slices.SortFunc(local, netip.Addr.Compare)
	return slices.Compact(local)
}

// hostTable lets the range out and nothing in: not to each other, not to the
// host itself, not to link-local services such as a cloud's metadata.
func hostTable(used netip.Prefix, resolvers []netip.Addr, router bool) []nft.Chain {
	nat := nft.Chain{
		Name: "postrouting", Kind: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource, Policy: nftables.ChainPolicyAccept,
		Rules: []nft.Words{nft.Rule(nft.Source(used), nft.NotDest(used), nft.Words{&expr.Masq{}})},
	}
	early := nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 1)
	filter := func(name string, hook *nftables.ChainHook, rules []nft.Words) nft.Chain {
		return nft.Chain{Name: name, Kind: nftables.ChainTypeFilter, Hook: hook, Priority: early, Policy: nftables.ChainPolicyAccept, Rules: rules}
	}
	return []nft.Chain{
		nat,
		filter("forward", nftables.ChainHookForward, forwardRules(used, router)),
		filter("input", nftables.ChainHookInput, inputRules(used, resolvers)),
	}
}

func forwardRules(used netip.Prefix, router bool) []nft.Words {
	rules := []nft.Words{
		nft.Rule(nft.Source(used), nft.Dest(used), nft.Drop()),
		nft.Rule(nft.Source(used), nft.Dest(linkLocal), nft.Drop()),
		nft.Rule(nft.Dest(used), nft.Unknown(), nft.Drop()), // bottles are called by nobody
		nft.Rule(nft.Source(used), nft.ClampMSS()),
	}
	if !router {
		// ip_forward is on for the bottles' sake only.
		rules = append(rules, nft.Rule(nft.NotSource(used), nft.NotDest(used), nft.Drop()))
	}
	return rules
}

func inputRules(used netip.Prefix, resolvers []netip.Addr) []nft.Words {
	rules := []nft.Words{
		nft.Rule(nft.From("lo"), nft.Accept()), // the host has an address of the range itself
		nft.Rule(nft.Source(used), nft.Known(), nft.Accept()),
	}
	for _, r := range resolvers {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			rules = append(rules, nft.Rule(nft.Source(used), nft.Dest(nft.Host(r)), nft.Port(protocol, 53), nft.Accept()))
		}
	}
	return append(rules, nft.Rule(nft.Source(used), nft.Drop()))
}

// Leave counts a bottle out, whether or not it is in; the last one restores the
// host. After an error call it again.
func (s Shared) Leave(ctx context.Context, instance string) error {
	return s.locked(ctx, func() error {
		if err := os.Remove(s.user(instance)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		users, err := s.users()
		if err != nil || len(users) > 0 {
			return err
		}
		if err := s.restoreHost(); err != nil {
			return err
		}
		return s.remove()
	})
}

// restoreHost does nothing where there was no bottle. On error all that it needs
// to be tried again stays.
func (s Shared) restoreHost() error {
	used, err := s.readRange()
	if errors.Is(err, fs.ErrNotExist) {
		return restoreByTable()
	}
	if err != nil {
		return err
	}
	before, err := s.forwarding()
	if err != nil {
		return err
	}
	if err := errors.Join(deleteTable(), s.removeFromForeignFirewalls(used), before.restore()); err != nil {
		return fmt.Errorf("restore the host: %w", err)
	}
	return errors.Join(os.RemoveAll(s.acceptFile()), os.Remove(s.rangeFile()))
}

// restoreByTable is for a host whose state directory went away with what was
// written down, by an unmount for one: the table itself shows whether the host
// forwarded packets before.
func restoreByTable() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	rules, err := c.GetRules(natTable, &nftables.Chain{Name: "forward", Table: natTable})
	if err != nil || len(rules) == 0 {
		return nil //nolint:nilerr // there is no such table
	}
	before := forwarding{sysctl.Forward: "1"}
	if slices.ContainsFunc(rules, isGuard) {
		before = forwarding{sysctl.Forward: "0"}
	}
	if err := errors.Join(deleteTable(), before.restore()); err != nil {
		return fmt.Errorf("restore the host: %w", err)
	}
	return nil
}

// isGuard finds the rule that only hosts have which do not route: the one that
// asks what a packet's source is not.
func isGuard(r *nftables.Rule) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		compare, ok := e.(*expr.Cmp)
		return ok && compare.Op == expr.CmpOpNeq
	})
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
// tool has flushed them. It touches nothing else, and nothing at all once the
// bottle has left.
func (s Shared) Reassert(ctx context.Context, instance string) error {
	if _, err := os.Stat(s.user(instance)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.locked(ctx, func() error {
		if _, err := os.Stat(s.user(instance)); err != nil {
			return ignoreAbsent(err) // detached while we waited
		}
		return s.ensure()
	})
}

// SetResolvers has a bottle ask other resolvers, unless it has left.
func (s Shared) SetResolvers(ctx context.Context, instance string, servers []netip.Addr) error {
	return s.locked(ctx, func() error {
		if _, err := os.Stat(s.user(instance)); err != nil {
			return ignoreAbsent(err) // detached meanwhile: not to be counted in again
		}
		if err := s.put(s.user(instance), resolverText(servers)); err != nil {
			return err
		}
		return s.ensure()
	})
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

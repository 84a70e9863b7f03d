package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"carboy/netns/nft"
)

// nativeTool stands for nftables itself in a place: firewalld and an operator's
// own /etc/nftables.conf write there, without iptables. The chain of such a
// place is "family table chain".
const nativeTool = "nft"

var nativeFamilies = map[string]nftables.TableFamily{"ip": nftables.TableFamilyIPv4, "inet": nftables.TableFamilyINet}

// nativePlaces are chains of others that drop what is forwarded and do not have
// our rules.
func nativePlaces(c *nftables.Conn) ([]place, error) {
	var places []place
	for name, family := range nativeFamilies {
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list nftables chains: %w", err)
		}
		for _, in := range chains {
			if !filtersForwarded(in) {
				continue
			}
			rules, err := c.GetRules(in.Table, in)
			if errors.Is(err, unix.ENOENT) {
				continue // its firewall is just being loaded again
			}
			if err != nil {
				return nil, fmt.Errorf("rules of chain %s in table %s: %w", in.Name, in.Table.Name, err)
			}
			if dropsTheRest(in, rules) && len(ourRules(rules)) != rulePair {
				places = append(places, place{nativeTool, strings.Join([]string{name, in.Table.Name, in.Name}, " ")})
			}
		}
	}
	return places, nil
}

// filtersForwarded leaves out our own chain and those of iptables.
func filtersForwarded(c *nftables.Chain) bool {
	return c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
		c.Table.Name != natTable.Name && c.Name != forwardName
}

// dropsTheRest looks at the policy, and at a last rule without a condition,
// which is how firewalld ends.
func dropsTheRest(c *nftables.Chain, rules []*nftables.Rule) bool {
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return true
	}
	if len(rules) == 0 {
		return false
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return false
}

func ourRules(rules []*nftables.Rule) (ours []*nftables.Rule) {
	for _, r := range rules {
		if text, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && text == ruleComment {
			ours = append(ours, r)
		}
	}
	return ours
}

// native finds the chain of a place with our rules in it.
func (p place) native() (*nftables.Chain, error) {
	words := strings.Fields(p.chain)
	if len(words) != 3 {
		return nil, fmt.Errorf("chain %q is not written as family, table and name", p.chain)
	}
	family, known := nativeFamilies[words[0]]
	if !known {
		return nil, fmt.Errorf("chain %q is of an unknown family", p.chain)
	}
	return &nftables.Chain{Table: &nftables.Table{Name: words[1], Family: family}, Name: words[2]}, nil
}

// acceptNative replaces our rules in the chain in one transaction. A firewall
// that owns its table lets nobody in (firewalld from 2.3): the bottle comes up
// all the same, as sealed as ever, and its operator has to open the range
// there.
func (p place) acceptNative(used netip.Prefix) error {
	err := p.change(nft.Rule(nft.IP4(), nft.Source(used), nft.Accept()), nft.Rule(nft.IP4(), nft.Dest(used), nft.Known(), nft.Accept()))
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

func (p place) removeNative() error { return p.change() }

// change makes these our rules in the chain of a place, unless it has gone.
func (p place) change(rules ...nft.Words) (err error) {
	defer func() {
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}()
	in, err := p.native()
	if err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	has, err := c.GetRules(in.Table, in)
	if err != nil {
		return err
	}
	for _, r := range ourRules(has) {
		if err := c.DelRule(r); err != nil {
			return err
		}
	}
	comment := userdata.AppendString(nil, userdata.TypeComment, ruleComment)
	for _, r := range rules {
		c.InsertRule(&nftables.Rule{Table: in.Table, Chain: in, Exprs: r, UserData: comment})
	}
	return c.Flush()
}

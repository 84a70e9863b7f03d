package uplink

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// A host may drop what it forwards: Docker sets the policy of FORWARD. An accept in
// our own table does not help then, so one pair of rules for the whole range
// goes into the firewall's own chain, and leaves with the table.
func foreignRules(used netip.Prefix) [][]string {
	comment := []string{"-m", "comment", "--comment", ruleComment, "-j", "ACCEPT"}
	return [][]string{
		append([]string{"-s", used.String()}, comment...),
		append([]string{"-d", used.String(), "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"}, comment...),
	}
}

const (
	ruleComment = "carboy"
	rulePair    = 2
	forwardName = "FORWARD"
	dockerName  = "DOCKER-USER" // Docker's place for an operator's accepts
)

// place is a chain that our accepts belong into, and the program that writes
// there.
type place struct{ tool, chain string }

func (s Shared) acceptInForeignFirewalls(used netip.Prefix) error {
	places, err := foreignPlaces()
	for i := 0; err == nil && i < len(places); i++ {
		err = s.accept(places[i], used)
	}
	if err != nil {
		return fmt.Errorf("accept bottles in the host's firewall: %w", err)
	}
	return nil
}

// foreignPlaces are those that lack our rules. Where nothing drops it starts no
// program: it is part of each start.
func foreignPlaces() ([]place, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	places, err := nativePlaces(c)
	if err != nil {
		return nil, err
	}
	current, err := placeInNFT(c)
	if err != nil {
		return nil, err
	}
	legacy, err := placeInLegacy()
	if err != nil {
		return nil, err
	}
	for _, p := range []*place{current, legacy} {
		if p != nil {
			places = append(places, *p)
		}
	}
	return places, nil
}

// placeInNFT is nil where nothing is dropped, where our rules are present, and
// without iptables.
func placeInNFT(c *nftables.Conn) (*place, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	chain := droppingChain(chains)
	if chain == nil || accepts(c, chain) {
		return nil, nil
	}
	tool := firstProgram("iptables-nft", "iptables")
	if tool == "" {
		return nil, nil
	}
	return &place{tool, chain.Name}, nil
}

func droppingChain(chains []*nftables.Chain) *nftables.Chain {
	var forward *nftables.Chain
	for _, c := range chains {
		switch {
		case c.Table.Name != "filter":
		case c.Name == dockerName:
			return c
		case c.Name == forwardName && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop:
			forward = c
		}
	}
	return forward
}

// accepts looks for both of our rules. What it cannot read it takes for
// missing: iptables itself looks again.
func accepts(c *nftables.Conn, chain *nftables.Chain) bool {
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return false
	}
	ours := 0
	for _, r := range rules {
		if slices.ContainsFunc(r.Exprs, isOurComment) {
			ours++
		}
	}
	return ours == rulePair
}

func isOurComment(e expr.Any) bool {
	m, ok := e.(*expr.Match)
	if !ok || m.Name != "comment" {
		return false
	}
	text, ok := m.Info.(*xt.Comment)
	return ok && strings.TrimRight(string(*text), "\x00") == ruleComment
}

// placeInLegacy asks the program, but only where the kernel has a table of the
// older kind.
func placeInLegacy() (*place, error) {
	b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || !slices.Contains(strings.Fields(string(b)), "filter") {
		return nil, ignoreAbsent(err)
	}
	tool := firstProgram("iptables-legacy", "iptables")
	if tool == "" {
		return nil, nil
	}
	ipt, err := iptables.New(iptables.Path(tool))
	if err != nil {
		return nil, err
	}
	chains, err := ipt.ListChains("filter")
	if err != nil {
		return nil, err
	}
	chain := forwardName
	if slices.Contains(chains, dockerName) {
		chain = dockerName
	}
	rules, err := ipt.List("filter", chain)
	if err != nil || chain == forwardName && !slices.Contains(rules, "-P "+forwardName+" DROP") {
		return nil, err
	}
	others := slices.DeleteFunc(slices.Clone(rules), func(r string) bool { return strings.Contains(r, "--comment "+ruleComment+" ") })
	if len(rules)-len(others) == rulePair {
		return nil, nil
	}
	return &place{tool, chain}, nil
}

func firstProgram(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// accept writes the place down before the rules, so that they can be found
// after a kill, and after the firewall has changed.
func (s Shared) accept(p place, used netip.Prefix) error {
	places, err := s.accepted()
	if err != nil {
		return err
	}
	if !slices.Contains(places, p) {
		var text strings.Builder
		for _, p := range append(places, p) {
			fmt.Fprintln(&text, p.tool, p.chain)
		}
		if err := s.put(s.acceptFile(), text.String()); err != nil {
			return err
		}
	}
	if p.tool == nativeTool {
		return p.acceptNative(used)
	}
	ipt, err := iptables.New(iptables.Path(p.tool))
	if err != nil {
		return err
	}
	for _, r := range foreignRules(used) {
		if err := ipt.InsertUnique("filter", p.chain, 1, r...); err != nil {
			return err
		}
	}
	return nil
}

func (s Shared) accepted() ([]place, error) {
	b, err := os.ReadFile(s.acceptFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var places []place
	for line := range strings.Lines(string(b)) {
		if tool, chain, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			places = append(places, place{tool, chain})
		}
	}
	return places, err
}

func (s Shared) removeFromForeignFirewalls(used netip.Prefix) error {
	places, err := s.accepted()
	errs := []error{err}
	for _, p := range places {
		if p.tool == nativeTool {
			errs = append(errs, p.removeNative())
			continue
		}
		ipt, err := iptables.New(iptables.Path(p.tool))
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			continue // uninstalled, and its rules with it
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, r := range foreignRules(used) {
			errs = append(errs, ipt.DeleteIfExists("filter", p.chain, r...))
		}
	}
	return errors.Join(errs...)
}

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables"
)

// A host may drop what it forwards: Docker sets FORWARD's policy. An accept in
// our own table does not help then, so one pair of rules for the whole range
// goes into the firewall's own chain, and leaves with the table.
func foreignRules(used netip.Prefix) [][]string {
	comment := []string{"-m", "comment", "--comment", "carboy", "-j", "ACCEPT"}
	return [][]string{
		append([]string{"-s", used.String()}, comment...),
		append([]string{"-d", used.String(), "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"}, comment...),
	}
}

// dropsForwarded looks without starting a program: it is part of each start.
// Legacy iptables cannot be asked that way, only whether it is in use.
func dropsForwarded() (bool, error) {
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && len(b) > 0 {
		return true, nil
	}
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, err
	}
	for _, chain := range chains {
		if chain.Table.Name != "filter" {
			continue
		}
		drops := chain.Name == "FORWARD" && chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop
		if drops || chain.Name == "DOCKER-USER" {
			return true, nil
		}
	}
	return false, nil
}

func acceptInForeignFirewall(used netip.Prefix) error {
	drops, err := dropsForwarded()
	if err != nil || !drops {
		return err
	}
	ipt, err := iptables.New()
	if err != nil {
		return fmt.Errorf("this host drops forwarded packets, and iptables is needed to let bottles out: %w", err)
	}
	chain, err := forwardChain(ipt)
	if err != nil || chain == "" {
		return err
	}
	for _, r := range foreignRules(used) {
		if err := ipt.InsertUnique("filter", chain, 1, r...); err != nil {
			return fmt.Errorf("accept bottles in iptables' %s: %w", chain, err)
		}
	}
	return nil
}

// forwardChain is where an operator's accepts belong; empty where nothing is
// dropped.
func forwardChain(ipt *iptables.IPTables) (string, error) {
	docker, err := ipt.ChainExists("filter", "DOCKER-USER")
	if err != nil || docker {
		return "DOCKER-USER", err
	}
	rules, err := ipt.List("filter", "FORWARD")
	if err != nil || len(rules) == 0 || rules[0] != "-P FORWARD DROP" {
		return "", err
	}
	return "FORWARD", nil
}

func removeFromForeignFirewall(used netip.Prefix) error {
	drops, err := dropsForwarded()
	if err != nil || !drops {
		return err
	}
	ipt, err := iptables.New()
	if err != nil {
		return err
	}
	var errs []error
	for _, chain := range []string{"DOCKER-USER", "FORWARD"} {
		if there, err := ipt.ChainExists("filter", chain); err != nil || !there {
			errs = append(errs, err)
			continue
		}
		for _, r := range foreignRules(used) {
			errs = append(errs, ipt.DeleteIfExists("filter", chain, r...))
		}
	}
	return errors.Join(errs...)
}

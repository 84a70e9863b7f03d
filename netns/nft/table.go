package nft

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Chain is a base chain with its rules.
type Chain struct {
	Name     string
	Kind     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Policy   nftables.ChainPolicy
	Rules    []Words
}

// write queues a table for one transaction.
func write(c *nftables.Conn, table *nftables.Table, chains []Chain) {
	c.AddTable(table)
	for i := range chains {
		in := &chains[i]
		made := c.AddChain(&nftables.Chain{
			Table: table, Name: in.Name, Type: in.Kind, Hooknum: in.Hook, Priority: in.Priority, Policy: &in.Policy,
		})
		for _, r := range in.Rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: made, Exprs: r})
		}
	}
}

// Replace puts a table in force, with what stood there gone, in one transaction.
func Replace(c *nftables.Conn, table *nftables.Table, chains []Chain) error {
	c.AddTable(table) // so that there is one to delete
	c.DelTable(table)
	write(c, table, chains)
	return c.Flush()
}

// Diff reads a table back and names every chain that is not as written; nil
// means that all are.
func Diff(c *nftables.Conn, table *nftables.Table, want []Chain) error {
	all, err := c.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	found := map[string]*nftables.Chain{}
	for _, has := range all {
		if has.Table.Name == table.Name {
			found[has.Name] = has
		}
	}
	var errs []error
	if len(found) != len(want) {
		errs = append(errs, fmt.Errorf("it has %d chains, not %d", len(found), len(want)))
	}
	for i := range want {
		if err := want[i].diff(c, table, found[want[i].Name]); err != nil {
			errs = append(errs, fmt.Errorf("chain %s: %w", want[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

func (want *Chain) diff(c *nftables.Conn, table *nftables.Table, has *nftables.Chain) error {
	if has == nil {
		return errors.New("missing")
	}
	if has.Type != want.Kind || has.Hooknum == nil || *has.Hooknum != *want.Hook || has.Priority == nil || *has.Priority != *want.Priority {
		return errors.New("another hook or priority than written")
	}
	if has.Policy == nil || *has.Policy != want.Policy {
		return errors.New("another policy than written")
	}
	rules, err := c.GetRules(table, has)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	if len(rules) != len(want.Rules) {
		return fmt.Errorf("%d rules, not %d", len(rules), len(want.Rules))
	}
	for i, r := range rules {
		if !equal(table, r.Exprs, want.Rules[i]) {
			return fmt.Errorf("rule %d is not as written", i+1)
		}
	}
	return nil
}

// equal compares rules as the kernel gets them.
func equal(table *nftables.Table, has, want Words) bool {
	want = slices.DeleteFunc(slices.Clone(want), neverRead)
	if len(has) != len(want) {
		return false
	}
	for i := range has {
		left, err := expr.Marshal(byte(table.Family), has[i])
		if err != nil {
			return false
		}
		right, err := expr.Marshal(byte(table.Family), want[i])
		if err != nil || !bytes.Equal(left, right) {
			return false
		}
	}
	return true
}

// neverRead are words that google/nftables v0.3.0 writes and leaves out when it
// reads a rule.
func neverRead(e expr.Any) bool {
	switch e.(type) {
	case *expr.Rt, *expr.Byteorder:
		return true
	}
	return false
}

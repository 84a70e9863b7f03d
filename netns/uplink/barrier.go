package uplink

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Barrier is a chain of another's firewall that drops what bottles send, as
// long as it has no rules of ours.
type Barrier struct {
	Chain string // as its own tool names it
	Owner string // who keeps it, as far as that shows
	Shut  string // why carboy cannot open it; empty where it can
}

// Barriers reads the host's firewalls and changes nothing. It needs root. A
// barrier that is open for bottles, because some are up, is none.
func Barriers() ([]Barrier, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	barriers, err := nativeBarriers(c)
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	if chain := droppingChain(chains); chain != nil && !accepts(c, chain) {
		b := Barrier{Chain: chain.Name, Owner: ownerOf(chains)}
		if firstProgram("iptables-nft", "iptables") == "" {
			b.Shut = "there is no iptables to open it with (apt install iptables)"
		}
		barriers = append(barriers, b)
	}
	legacy, err := placeInLegacy()
	if legacy != nil {
		b := Barrier{Chain: legacy.chain, Owner: "iptables-legacy"}
		if legacy.chain == dockerName {
			b.Owner = "Docker"
		}
		barriers = append(barriers, b)
	}
	return barriers, err
}

// owned says that nobody but its owner may change a table. google/nftables
// v0.3.0 reads flags in the byte order of the host, and they are the network's.
func owned(t *nftables.Table) bool {
	const flag = 2 // NFT_TABLE_F_OWNER, linux/netfilter/nf_tables.h
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, t.Flags))&flag != 0
}

func nativeBarriers(c *nftables.Conn) (barriers []Barrier, err error) {
	places, err := nativePlaces(c)
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, p := range places {
		table := strings.Fields(p.chain)[1]
		b := Barrier{Chain: p.chain, Owner: nativeOwner(table)}
		if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table && owned(t) }) {
			b.Shut = "its table is its owner's alone"
		}
		barriers = append(barriers, b)
	}
	return barriers, nil
}

func nativeOwner(table string) string {
	switch {
	case table == "firewalld":
		return table
	case strings.HasPrefix(table, "nm-shared-"):
		return "NetworkManager"
	}
	return "the operator's nftables"
}

// ownerOf guesses by the names of chains who set the policy of iptables.
func ownerOf(chains []*nftables.Chain) string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name == "filter" && strings.HasPrefix(c.Name, prefix) })
	}
	switch {
	case has("DOCKER"):
		return "Docker"
	case has("ufw"):
		return "ufw"
	case has("KUBE-"):
		return "Kubernetes"
	}
	return "iptables"
}

package netns

import (
	"io"
	"os/exec"
	"testing"
	"time"

	"carboy/netns/uplink"
)

// TestBarriers: who drops is named, until bottles have opened it.
func TestBarriers(t *testing.T) {
	const forward = " { type filter hook forward priority 10 \\; "
	for owner, setUp := range map[string]string{
		"iptables":                "iptables-nft -P FORWARD DROP",
		"Docker":                  "iptables-nft -N DOCKER-USER; iptables-nft -I FORWARD -j DOCKER-USER; iptables-nft -P FORWARD DROP",
		"ufw":                     "iptables-nft -N ufw-before-forward; iptables-nft -P FORWARD DROP",
		"iptables-legacy":         "iptables-legacy -P FORWARD DROP",
		"the operator's nftables": "nft add table inet filter; nft add chain inet filter forward" + forward + "policy drop \\; }",
		"NetworkManager":          "nft add table ip nm-shared-up0; nft add chain ip nm-shared-up0 filter_forward" + forward + "policy drop \\; }",
		"firewalld": "nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD" + forward + "}; " +
			"nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
	} {
		t.Run(owner, func(t *testing.T) {
			w := newWorld(t)
			if found, err := uplink.Barriers(); len(found) > 0 || err != nil {
				t.Fatalf("before: %+v, %v", found, err)
			}
			must(t, run("sh", "-ec", setUp))
			defer func() { _ = run("iptables-legacy", "-P", "FORWARD", "ACCEPT") }()
			found, err := uplink.Barriers()
			if err != nil || len(found) != 1 || found[0].Owner != owner || found[0].Shut != "" {
				t.Errorf("found %+v, %v", found, err)
			}
			n := w.bottle(t, w.config("abc", pluginDirs(t)[0]))
			if open, err := uplink.Barriers(); len(open) > 0 || err != nil {
				t.Errorf("while a bottle lives: %+v, %v", open, err)
			}
			must(t, n.down())
		})
	}
}

// TestShutBarriers cannot be opened: nobody but its owner may change a table,
// and nobody without iptables its chains.
func TestShutBarriers(t *testing.T) {
	newWorld(t)
	owner := exec.Command("nft", "--interactive")
	in, err := owner.StdinPipe()
	must(t, err)
	owner.Stdout = io.Discard
	must(t, owner.Start())
	defer func() { _, _ = in.Close(), owner.Wait() }()
	_, err = io.WriteString(in, "add table inet firewalld { flags owner; }\nadd chain inet firewalld f { type filter hook forward priority 0; policy drop; }\n")
	must(t, err)
	var found []uplink.Barrier
	for end := time.Now().Add(10 * time.Second); len(found) == 0 && err == nil && time.Now().Before(end); {
		found, err = uplink.Barriers()
	}
	if err != nil || len(found) != 1 || found[0].Owner != "firewalld" || found[0].Shut == "" {
		t.Errorf("found %+v, %v", found, err)
	}
	must(t, in.Close())
	must(t, owner.Wait())

	must(t, run("iptables-nft", "-P", "FORWARD", "DROP"))
	t.Setenv("PATH", "/nowhere")
	if found, err = uplink.Barriers(); err != nil || len(found) != 1 || found[0].Shut == "" {
		t.Errorf("without iptables: %+v, %v", found, err)
	}
}

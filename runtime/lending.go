package runtime

import (
	"context"
	"fmt"

	"carboy/runtime/initproto"
	"carboy/runtime/provision"
	"carboy/runtime/sshagent"
)

// checkKeys refuses a start without the keys of the plan.
func (p *Plan) checkKeys(keys []sshagent.Key) error {
	if len(keys) != len(p.SSH) {
		return fmt.Errorf("%d keys for %d ssh hosts", len(keys), len(p.SSH))
	}
	return nil
}

// sshHosts is what ssh in the container is told.
func (b *Bottle) sshHosts() (hosts []provision.SSH) {
	for i, s := range b.plan.SSH {
		hosts = append(hosts, provision.SSH{Host: s.Host, HostName: s.HostName, Port: s.Port, User: s.User, Key: b.options.Keys[i].Public, HostKeys: s.hostKeys})
	}
	return hosts
}

// lendKeys opens the socket inside the container through which the agent's user
// logs in with keys that this process holds.
func (b *Bottle) lendKeys(ctx context.Context, init *initproto.Client) error {
	if len(b.plan.SSH) == 0 {
		return nil
	}
	var grants []sshagent.Grant
	for i, s := range b.plan.SSH {
		grants = append(grants, sshagent.Grant{Key: b.options.Keys[i], Host: sshagent.Host{Name: s.Host, User: s.User, Keys: s.hostKeys}})
	}
	agent := sshagent.New(grants, b.audit.Append)
	live := context.WithoutCancel(ctx) // connections end with their link
	return init.Listen(ctx, initproto.Listen{Path: provision.SSHAgentPath, Owner: b.command.User}, func(conn *initproto.Conn) {
		_ = agent.Serve(live, conn) // who breaks the protocol is cut off
	})
}

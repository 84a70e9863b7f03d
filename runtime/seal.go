package runtime

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
)

// sealFile is in the run directory, so that others than the supervisor can
// compare what is in force with what was asked for.
const sealFile = "seal.json"

// seal is what a bottle was sealed to, beside its record.
type seal struct {
	Root      bool         `json:"root"` // the agent was asked to be root
	Limits    PlanLimits   `json:"limits"`
	Ports     []uint16     `json:"ports"` // that the proxy may connect to
	Resolvers []netip.Addr `json:"resolvers"`
	Allowed   string       `json:"allowed,omitempty"` // HOST:PORT of one that is allowed by its full name
}

func (b *Bottle) seal() seal {
	return seal{
		Root: isRoot(b.plan.User), Limits: b.plan.Limits, Ports: b.network.Ports, Resolvers: b.network.Resolvers,
		Allowed: b.plan.allowed(),
	}
}

// allowed is empty where only wildcards and addresses are, or nothing.
func (p *Plan) allowed() string {
	for _, a := range p.policy.Allow {
		host := a.Host()
		if _, err := netip.ParseAddr(host); err == nil || host[0] == '*' || len(a.Ports()) == 0 {
			continue
		}
		ports := a.Ports()
		return host + ":" + strconv.Itoa(int(ports[len(ports)-1])) // 443 of the usual ones
	}
	return ""
}

// writeSeal is called again for what has changed.
func (b *Bottle) writeSeal() error {
	text, err := json.MarshalIndent(b.seal(), "", "  ")
	if err != nil {
		return err
	}
	at := filepath.Join(b.dir(), sealFile)
	if err := os.WriteFile(at+".new", text, 0o600); err != nil {
		return fmt.Errorf("write what the bottle is sealed to: %w", err)
	}
	return os.Rename(at+".new", at)
}

func (r Record) readSeal() (s seal, err error) {
	text, err := os.ReadFile(filepath.Join(r.dir(), sealFile))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, fmt.Errorf("what the bottle is sealed to: %w", err)
	}
	return s, nil
}

package runtime

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"carboy/runtime/proxy/policy"
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

// sealed is a seal that is kept in its file.
type sealed struct {
	path string
	mu   sync.Mutex
	seal seal
}

func (b *Bottle) newSealed() *sealed {
	return &sealed{path: filepath.Join(b.dir(), sealFile), seal: seal{
		Root: isRoot(b.plan.User), Limits: b.plan.Limits, Resolvers: b.network.Resolvers,
	}}
}

func (s *seal) follow(p policy.Policy) { s.Ports, s.Allowed = p.Ports(), tried(p) }

// tried is one host that a policy allows, as HOST:PORT. It is empty where only
// wildcards and addresses are, or nothing.
func tried(p policy.Policy) string {
	if p.Paused {
		return ""
	}
	for _, a := range p.Allow {
		host := a.Host()
		if _, err := netip.ParseAddr(host); err == nil || host[0] == '*' || len(a.Ports()) == 0 {
			continue
		}
		ports := a.Ports()
		return host + ":" + strconv.Itoa(int(ports[len(ports)-1])) // 443 of the usual ones
	}
	return ""
}

func (s *sealed) now() seal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seal
}

// set writes the file, too.
func (s *sealed) set(change func(*seal)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.seal)
	text, err := json.MarshalIndent(s.seal, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".new", text, 0o600); err != nil {
		return fmt.Errorf("write what the bottle is sealed to: %w", err)
	}
	return os.Rename(s.path+".new", s.path)
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

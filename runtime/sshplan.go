package runtime

import (
	"cmp"
	"fmt"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"golang.org/x/crypto/ssh"

	"carboy/runtime/manifest"
	"carboy/runtime/provision"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/sshagent"
)

// SSHPlan is a host that the agent may log in to with a key that stays outside.
type SSHPlan struct {
	Host     string   `json:"host"`
	HostName string   `json:"hostname"`
	Port     uint16   `json:"port"`
	User     string   `json:"user,omitempty"` // empty: anybody
	Key      string   `json:"key"`            // as sshagent.Source.Open takes it
	HostKeys []string `json:"hostKeys"`       // fingerprints

	hostKeys []ssh.PublicKey
	at       manifest.Place // of the key
}

func (p *Plan) setGit(b manifest.Bottle) error {
	g := provision.Git(b.Git)
	if err := g.Check(); err != nil {
		return b.At("git").Fault(invalid("git: %w", err))
	}
	if p.provision.Git = g; !g.IsZero() {
		p.Git = &g
	}
	return nil
}

// setSSH also allows the hosts to be reached.
func (p *Plan) setSSH(b manifest.Bottle) error {
	seen := map[string]bool{}
	for _, m := range b.SSH {
		at := b.At("ssh", m.Host)
		s, err := planSSH(m)
		if err != nil {
			return at.Fault(fmt.Errorf("ssh host %q: %w", m.Host, err))
		}
		s.at = b.At("ssh", m.Host, "key")
		if seen[s.Host] {
			return at.Fault(invalid("ssh host %s is declared twice", s.Host))
		}
		seen[s.Host] = true
		pattern, err := policy.ParsePattern(fmt.Sprintf("tcp:%s:%d", s.HostName, s.Port))
		if err != nil {
			return at.Fault(invalid("%w", err))
		}
		p.policy.Allow = append(p.policy.Allow, pattern)
		p.Allow = append(p.Allow, pattern.String())
		p.SSH = append(p.SSH, s)
	}
	return nil
}

func planSSH(m manifest.SSH) (SSHPlan, error) {
	s := SSHPlan{Port: cmp.Or(m.Port, 22), User: m.User, Key: cmp.Or(m.Key, manifest.OnlyKey)}
	var err error
	if s.Host, err = policy.NormalizeHost(m.Host); err != nil {
		return s, invalid("%w", err)
	}
	if s.HostName, err = policy.NormalizeHost(cmp.Or(m.HostName, m.Host)); err != nil {
		return s, invalid("hostname %q: %w", m.HostName, err)
	}
	if s.User != "" && !manifest.LoginName.MatchString(s.User) {
		return s, invalid("user %q: use letters, digits and _ . @ + -", s.User)
	}
	if strings.ContainsFunc(s.Key, unicode.IsControl) {
		return s, invalid("key %q: a control character", s.Key)
	}
	if s.hostKeys, err = hostKeys(m.KnownHosts); err != nil {
		return s, err
	}
	if len(s.hostKeys) == 0 {
		return s, invalid("no known-hosts: add its public keys, which `ssh-keyscan -p %d %s` shows: compare them with what its owner publishes", s.Port, s.HostName)
	}
	for _, key := range s.hostKeys {
		s.HostKeys = append(s.HostKeys, ssh.FingerprintSHA256(key))
	}
	return s, nil
}

func hostKeys(lines []string) (keys []ssh.PublicKey, err error) {
	for _, line := range lines {
		key, err := manifest.HostKey(line)
		if err != nil {
			return nil, invalid("%w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// CheckKey looks for a key's file and reads nothing.
func (s SSHPlan) CheckKey(source sshagent.Source) error {
	if err := source.Check(s.Key); err != nil {
		return s.at.Fault(fmt.Errorf("ssh host %s: %w: %w", s.Host, err, errdefs.ErrInvalidArgument))
	}
	return nil
}

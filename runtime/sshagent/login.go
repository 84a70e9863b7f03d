package sshagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"carboy/runtime/audit"
	"carboy/runtime/proxy/policy"
)

// mostBound is how many ssh sessions one connection may be about; ssh uses one.
const mostBound = 16

// bind notes that a host which a key was lent for has proved a session to be
// its own.
func (s *session) bind(request []byte) error {
	var m struct {
		Extension string `sshtype:"27"`
		HostKey   []byte
		Session   []byte
		Signature []byte
		Forwarded bool
	}
	if err := ssh.Unmarshal(request, &m); err != nil {
		return err
	}
	if m.Extension != "session-bind@openssh.com" || m.Forwarded || len(s.bound) == mostBound {
		return errors.New("not to be bound")
	}
	host, err := s.agent.hostKey(m.HostKey)
	if err != nil {
		return err
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(m.Signature, &signature); err != nil {
		return err
	}
	if err := host.Verify(m.Session, &signature); err != nil {
		return err
	}
	s.bound[string(m.Session)] = m.HostKey
	return nil
}

// hostKey is one that was declared: no other is even parsed.
func (a *Agent) hostKey(blob []byte) (ssh.PublicKey, error) {
	for _, g := range a.grants {
		if key := g.Host.find(blob); key != nil {
			return key, nil
		}
	}
	return nil, errors.New("not the key of a declared host")
}

func (h Host) find(blob []byte) ssh.PublicKey {
	for _, key := range h.Keys {
		if bytes.Equal(key.Marshal(), blob) {
			return key
		}
	}
	return nil
}

// sign signs a login and records it, or why not. A signature that cannot be
// recorded is not given.
func (s *session) sign(ctx context.Context, request []byte) ([]byte, error) {
	var m struct {
		Key   []byte `sshtype:"13"`
		Data  []byte
		Flags uint32
	}
	if err := ssh.Unmarshal(request, &m); err != nil {
		return nil, err
	}
	event := audit.Event{Event: "ssh-sign", Verdict: audit.Deny}
	grant, err := s.allow(m.Key, m.Data, &event)
	if err != nil {
		return nil, errors.Join(err, s.agent.refused(event, err))
	}
	if err := s.agent.signatures.Wait(ctx); err != nil {
		return nil, err
	}
	event.Verdict = audit.Allow
	signature, err := grant.Key.sign(m.Data, agent.SignatureFlags(m.Flags))
	if err != nil {
		event.Verdict, event.Reason = audit.Fail, policy.Escape(err.Error())
	}
	if err := errors.Join(err, s.agent.note(event)); err != nil {
		return nil, err
	}
	return ssh.Marshal(struct {
		Signature []byte `sshtype:"14"`
	}{ssh.Marshal(signature)}), nil
}

// allow finds the grant for a login, and fills in what is known of the event.
func (s *session) allow(key, data []byte, e *audit.Event) (*Grant, error) {
	login, err := parseLogin(data)
	if err != nil {
		return nil, err
	}
	e.User = policy.Escape(login.User)
	grant, err := s.decide(key, login)
	if grant != nil {
		e.Key, e.Host = ssh.FingerprintSHA256(grant.Key.Public), grant.Host.Name
	}
	return grant, err
}

// refused costs none of the signatures that others wait for, and a line of the
// record only now and then: a hostile bottle asks for nonsense for as long as it
// lives.
func (a *Agent) refused(e audit.Event, why error) error {
	if !a.refusals.Allow() {
		a.omitted.Add(1)
		return nil
	}
	e.Reason = policy.Escape(why.Error())
	return a.note(e)
}

// note records an event and how many there was no line for.
func (a *Agent) note(e audit.Event) error {
	e.Omitted = int(a.omitted.Swap(0))
	return a.record(e)
}

// decide returns the grant that allows a login, or an error beside the grant
// that comes nearest, if there is any.
func (s *session) decide(key []byte, l login) (*Grant, error) {
	lent := s.agent.lent(key)
	host := s.bound[string(l.Session)]
	switch {
	case len(lent) == 0:
		return nil, errors.New("not a key that was lent")
	case !bytes.Equal(l.Key, key):
		return lent[0], errors.New("the login names another key")
	case host == nil:
		return lent[0], errors.New("no declared host has proved the session to be its own: ssh has to be OpenSSH 8.9 or newer")
	case l.HostKey != nil && !bytes.Equal(l.HostKey, host):
		return lent[0], errors.New("the login names another host")
	}
	nearest, err := lent[0], errors.New("the key was not lent for this host")
	for _, g := range lent {
		if g.Host.find(host) == nil {
			continue
		}
		if g.Host.User == "" || g.Host.User == l.User {
			return g, nil
		}
		nearest, err = g, fmt.Errorf("the key was lent for user %s", g.Host.User)
	}
	return nearest, err
}

func (a *Agent) lent(key []byte) (grants []*Grant) {
	for i := range a.grants {
		if bytes.Equal(a.grants[i].Key.Public.Marshal(), key) {
			grants = append(grants, &a.grants[i])
		}
	}
	return grants
}

// login is what a client signs to log in (RFC 4252, 7), for OpenSSH with the
// host's key (PROTOCOL, publickey-hostbound).
type login struct {
	Session []byte
	User    string
	Key     []byte
	HostKey []byte // nil where it was not named
}

var errNotLogin = errors.New("not the login of an ssh session")

// parseLogin refuses everything else that one can sign: a key that is lent for
// logins signs no commits and no certificates.
func parseLogin(data []byte) (login, error) {
	var m struct {
		Session   []byte
		Type      byte
		User      string
		Service   string
		Method    string
		Signed    bool
		Algorithm string
		Key       []byte
		Rest      []byte `ssh:"rest"`
	}
	const userauthRequest = 50
	if err := ssh.Unmarshal(data, &m); err != nil || m.Type != userauthRequest || m.Service != "ssh-connection" || !m.Signed {
		return login{}, errNotLogin
	}
	l := login{Session: m.Session, User: m.User, Key: m.Key}
	switch m.Method {
	case "publickey":
		if len(m.Rest) > 0 {
			return login{}, errNotLogin
		}
	case "publickey-hostbound-v00@openssh.com":
		var rest struct{ HostKey []byte }
		if ssh.Unmarshal(m.Rest, &rest) != nil || len(rest.HostKey) == 0 {
			return login{}, errNotLogin
		}
		l.HostKey = rest.HostKey
	default:
		return login{}, errNotLogin
	}
	return l, nil
}

package sshagent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/time/rate"

	"carboy/runtime/audit"
)

// keyOf is a private key in memory, and that of a host.
func keyOf(t testing.TB, comment string) (Key, ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return Key{Public: signer.PublicKey(), Comment: comment, sign: func(data []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
		return signer.Sign(rand.Reader, data)
	}}, signer
}

// stage is an agent that lent one key for two hosts and another for one.
type stage struct {
	agent         *Agent
	one, two      Key
	git, web, far ssh.Signer // far is declared nowhere
	events        []audit.Event
	full          error // of the record
}

func newStage(t testing.TB) *stage {
	s := &stage{}
	s.one, _ = keyOf(t, "one")
	s.two, _ = keyOf(t, "two")
	_, s.git = keyOf(t, "")
	_, s.web = keyOf(t, "")
	_, s.far = keyOf(t, "")
	host := func(name, user string, key ssh.Signer) Host {
		return Host{Name: name, User: user, Keys: []ssh.PublicKey{key.PublicKey()}}
	}
	s.agent = New([]Grant{{s.one, host("git", "git", s.git)}, {s.one, host("web", "", s.web)}, {s.two, host("web", "", s.web)}},
		func(e audit.Event) error {
			s.events = append(s.events, e)
			return s.full
		})
	return s
}

// client is a connection of the bottle's.
func (s *stage) client(t testing.TB) (agent.ExtendedAgent, net.Conn) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	go func() {
		_ = s.agent.Serve(t.Context(), ours)
		_ = ours.Close()
	}()
	return agent.NewClient(theirs), theirs
}

func bindTo(t testing.TB, c agent.ExtendedAgent, host ssh.Signer, session string, forwarded bool) error {
	t.Helper()
	signature, err := host.Sign(rand.Reader, []byte(session))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Extension("session-bind@openssh.com", ssh.Marshal(struct {
		Key, Session, Signature []byte
		Forwarded               bool
	}{host.PublicKey().Marshal(), []byte(session), ssh.Marshal(signature), forwarded}))
	return err
}

// request is a login as a client signs it.
type request struct {
	Session   string
	Type      byte
	User      string
	Service   string
	Method    string
	Signed    bool
	Algorithm string
	Key       []byte
	Rest      []byte `ssh:"rest"`
}

func loginOf(session, user string, key Key) request {
	return request{session, 50, user, "ssh-connection", "publickey", true, key.Public.Type(), key.Public.Marshal(), nil}
}

func (r request) hostbound(host ssh.Signer) request {
	r.Method = "publickey-hostbound-v00@openssh.com"
	r.Rest = ssh.Marshal(struct{ Key []byte }{host.PublicKey().Marshal()})
	return r
}

func TestListNamesEachKeyOnce(t *testing.T) {
	s := newStage(t)
	c, _ := s.client(t)
	keys, err := c.List()
	if err != nil || len(keys) != 2 || keys[0].Comment != "one" || !bytes.Equal(keys[1].Blob, s.two.Public.Marshal()) {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestLoginIsSigned(t *testing.T) {
	s := newStage(t)
	c, _ := s.client(t)
	for _, host := range []ssh.Signer{s.git, s.web} {
		if err := bindTo(t, c, host, string(host.PublicKey().Marshal()), false); err != nil {
			t.Fatal(err)
		}
	}
	git, web := string(s.git.PublicKey().Marshal()), string(s.web.PublicKey().Marshal())
	for _, r := range []request{
		loginOf(git, "git", s.one), loginOf(git, "git", s.one).hostbound(s.git),
		loginOf(web, "anybody", s.one).hostbound(s.web), loginOf(web, "root", s.two),
	} {
		key, err := ssh.ParsePublicKey(r.Key)
		if err != nil {
			t.Fatal(err)
		}
		data := ssh.Marshal(r)
		signature, err := c.Sign(key, data)
		if err != nil {
			t.Errorf("%s to %x: %v, %v", r.User, r.Session[:8], err, s.events)
			continue
		}
		if err := key.Verify(data, signature); err != nil {
			t.Error(err)
		}
	}
	last := s.events[len(s.events)-1]
	if len(s.events) != 4 || last.Event != "ssh-sign" || last.Verdict != audit.Allow || last.Host != "web" || last.User != "root" || last.Key != ssh.FingerprintSHA256(s.two.Public) {
		t.Errorf("recorded %+v", s.events)
	}
}

func TestNothingElseIsSigned(t *testing.T) {
	s := newStage(t)
	s.agent.refusals.SetLimit(rate.Inf) // a line for each
	stranger, _ := keyOf(t, "stranger")
	good := loginOf("git-session", "git", s.one)
	with := func(f func(*request)) []byte {
		r := good
		f(&r)
		return ssh.Marshal(r)
	}
	for name, tc := range map[string]struct {
		key  Key
		data []byte
		want string
	}{
		"a key that was not lent":  {stranger, ssh.Marshal(loginOf("git-session", "git", stranger)), "not a key that was lent"},
		"another key's login":      {s.one, ssh.Marshal(loginOf("git-session", "git", s.two)), "names another key"},
		"no session":               {s.one, with(func(r *request) { r.Session = "other" }), "OpenSSH 8.9"},
		"another host":             {s.two, ssh.Marshal(loginOf("git-session", "git", s.two)), "not lent for this host"},
		"another host by its name": {s.one, ssh.Marshal(good.hostbound(s.web)), "names another host"},
		"another user":             {s.one, with(func(r *request) { r.User = "root" }), "lent for user git"},
		"a commit":                 {s.one, append([]byte("SSHSIG"), ssh.Marshal(good)...), "not the login"},
		"another message":          {s.one, with(func(r *request) { r.Type = 5 }), "not the login"},
		"another service":          {s.one, with(func(r *request) { r.Service = "ssh-userauth" }), "not the login"},
		"another method":           {s.one, with(func(r *request) { r.Method = "hostbased" }), "not the login"},
		"a question":               {s.one, with(func(r *request) { r.Signed = false }), "not the login"},
		"more":                     {s.one, with(func(r *request) { r.Rest = []byte{0} }), "not the login"},
		"no host":                  {s.one, with(func(r *request) { r.Method = "publickey-hostbound-v00@openssh.com" }), "not the login"},
		"nothing":                  {s.one, nil, "not the login"},
	} {
		t.Run(name, func(t *testing.T) {
			s.events = nil
			c, _ := s.client(t)
			if err := bindTo(t, c, s.git, "git-session", false); err != nil {
				t.Fatal(err)
			}
			if signature, err := c.Sign(tc.key.Public, tc.data); err == nil {
				t.Errorf("signed: %v", signature)
			}
			if len(s.events) != 1 || s.events[0].Verdict != audit.Deny || !strings.Contains(s.events[0].Reason, tc.want) {
				t.Errorf("recorded %+v, want %q", s.events, tc.want)
			}
			if _, err := c.Sign(s.one.Public, ssh.Marshal(good)); err != nil {
				t.Errorf("control: %v", err)
			}
		})
	}
}

func TestBindWantsProof(t *testing.T) {
	s := newStage(t)
	c, _ := s.client(t)
	if err := bindTo(t, c, s.far, "session", false); err == nil {
		t.Error("bound to a host that is not declared")
	}
	if err := bindTo(t, c, s.git, "session", true); err == nil {
		t.Error("bound for a forwarded agent")
	}
	signature, err := s.far.Sign(rand.Reader, []byte("session"))
	if err != nil {
		t.Fatal(err)
	}
	forged := ssh.Marshal(struct {
		Key, Session, Signature []byte
		Forwarded               bool
	}{s.git.PublicKey().Marshal(), []byte("session"), ssh.Marshal(signature), false})
	if _, err := c.Extension("session-bind@openssh.com", forged); err == nil {
		t.Error("bound by another's signature")
	}
	if _, err := c.Sign(s.one.Public, ssh.Marshal(loginOf("session", "git", s.one))); err == nil {
		t.Error("signed for a session that is nobody's")
	}
	for i := range mostBound + 1 {
		if err := bindTo(t, c, s.git, strings.Repeat("s", i+1), false); (err == nil) != (i < mostBound) {
			t.Errorf("session %d: %v", i, err)
		}
	}
}

// TestBindIsOfOneConnection: another process's proof is no proof.
func TestBindIsOfOneConnection(t *testing.T) {
	s := newStage(t)
	one, _ := s.client(t)
	two, _ := s.client(t)
	if err := bindTo(t, one, s.git, "session", false); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Sign(s.one.Public, ssh.Marshal(loginOf("session", "git", s.one))); err == nil {
		t.Error("signed")
	}
}

func TestOtherRequestsFail(t *testing.T) {
	s := newStage(t)
	c, _ := s.client(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"add":        c.Add(agent.AddedKey{PrivateKey: private}),
		"remove":     c.Remove(s.one.Public),
		"remove all": c.RemoveAll(),
		"lock":       c.Lock([]byte("x")),
		"unlock":     c.Unlock([]byte("x")),
	} {
		if err == nil {
			t.Errorf("%s works", what)
		}
	}
	if _, err := c.Extension("query", nil); err == nil {
		t.Error("query works")
	}
	if keys, err := c.List(); err != nil || len(keys) != 2 {
		t.Errorf("afterwards: %v, %v", keys, err)
	}
}

func TestUnrecordedIsUnsigned(t *testing.T) {
	s := newStage(t)
	s.full = errors.New("disk full")
	c, _ := s.client(t)
	if err := bindTo(t, c, s.git, "session", false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sign(s.one.Public, ssh.Marshal(loginOf("session", "git", s.one))); err == nil {
		t.Error("signed")
	}
}

func signRequest(key Key, data []byte) []byte {
	return ssh.Marshal(struct {
		Key   []byte `sshtype:"13"`
		Data  []byte
		Flags uint32
	}{key.Public.Marshal(), data, 0})
}

// gitSession is a connection on which the host git has proved a session.
func (s *stage) gitSession() *session {
	return &session{agent: s.agent, bound: map[string][]byte{"git-session": s.git.PublicKey().Marshal()}}
}

// TestSignaturesAreBounded: one more than the bound has to wait, and leaves no
// line in the record.
func TestSignaturesAreBounded(t *testing.T) {
	s := newStage(t)
	if !s.agent.signatures.AllowN(time.Now(), s.agent.signatures.Burst()) {
		t.Fatal("there is no bound")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	answer := s.gitSession().answer(ctx, signRequest(s.one, ssh.Marshal(loginOf("git-session", "git", s.one))))
	if answer[0] != agentFailure || len(s.events) != 0 {
		t.Errorf("answer %v, recorded %v", answer, s.events)
	}
}

// TestNonsenseCostsNothing: refusals leave the honest their signatures, and the
// record few lines.
func TestNonsenseCostsNothing(t *testing.T) {
	s := newStage(t)
	stranger, _ := keyOf(t, "stranger")
	bad := [][]byte{
		signRequest(s.one, []byte("no login")), signRequest(stranger, ssh.Marshal(loginOf("git-session", "git", stranger))),
		signRequest(s.one, ssh.Marshal(loginOf("git-session", "root", s.one))),
	}
	session := s.gitSession()
	before := s.agent.signatures.Tokens()
	const many = 1000
	for i := range many {
		if answer := session.answer(t.Context(), bad[i%len(bad)]); answer[0] != agentFailure {
			t.Fatalf("answer %v", answer)
		}
	}
	if after := s.agent.signatures.Tokens(); after < before {
		t.Errorf("%v signatures are left of %v", after, before)
	}
	lines := s.agent.refusals.Burst()
	if len(s.events) != lines {
		t.Errorf("%d lines for %d refusals", len(s.events), many)
	}
	answer := session.answer(t.Context(), signRequest(s.one, ssh.Marshal(loginOf("git-session", "git", s.one))))
	if last := s.events[len(s.events)-1]; answer[0] == agentFailure || last.Verdict != audit.Allow || last.Omitted != many-lines {
		t.Errorf("answer %v, recorded %+v", answer, last)
	}
}

func TestLongMessagesEndTheConnection(t *testing.T) {
	s := newStage(t)
	for _, n := range []uint32{0, longestMessage + 1, 1<<32 - 1} {
		_, conn := s.client(t)
		if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes are answered", n)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	s := newStage(f)
	signed := ssh.Marshal(loginOf("session", "git", s.one))
	f.Add([]byte{requestIdentities})
	f.Add(signRequest(s.one, signed))
	f.Add(ssh.Marshal(struct {
		Name string `sshtype:"27"`
		Rest []byte `ssh:"rest"`
	}{"session-bind@openssh.com", []byte("\x00\x00\x00\x00")}))
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) == 0 {
			return
		}
		s.agent.signatures.SetLimit(1e9)
		session := session{agent: s.agent, bound: map[string][]byte{}}
		answer := session.answer(t.Context(), message)
		if kind := answer[0]; kind != agentFailure && kind != 12 {
			t.Errorf("an answer of type %d without a proof of any host", kind)
		}
	})
}

// Package sshagent answers ssh in a bottle in the place of an ssh-agent: it
// lists the keys that the bottle was lent and signs logins with them, to the
// hosts they were lent for, and nothing else. No key ever enters the bottle.
//
// What a bottle says is hostile. The protocol is
// draft-ietf-sshm-ssh-agent-05, its extension session-bind@openssh.com that of
// OpenSSH's PROTOCOL.agent.
package sshagent

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"carboy/runtime/audit"
)

// Host is one that a key was lent for.
type Host struct {
	Name string // for the record
	User string // who may be logged in as; empty is anybody
	Keys []ssh.PublicKey
}

// Grant lends a key for a host.
type Grant struct {
	Key  Key
	Host Host
}

// Agent serves all of a bottle's connections.
type Agent struct {
	grants     []Grant
	record     func(audit.Event) error
	requests   *rate.Limiter
	signatures *rate.Limiter
	refusals   *rate.Limiter // that are recorded
	omitted    atomic.Int64  // refusals since the last record
}

// New makes an agent that tells record of every signature before it is given,
// and of refusals unless there are many.
func New(grants []Grant, record func(audit.Event) error) *Agent {
	return &Agent{grants: grants, record: record,
		// Far above what git and ssh need, in any second and at once: they bound
		// the work and the record that a hostile bottle can cause.
		requests: rate.NewLimiter(100, 1000), signatures: rate.NewLimiter(1, 60),
		refusals: rate.NewLimiter(rate.Every(time.Minute), 10)}
}

// longestMessage is in bytes: keys and signatures of 16384 bits fit.
const longestMessage = 16 << 10

// Types of messages.
const (
	agentFailure      = 5
	agentSuccess      = 6
	requestIdentities = 11
	requestSignature  = 13
	requestExtension  = 27
)

// Serve answers one connection until its end, or a breach of the protocol.
func (a *Agent) Serve(ctx context.Context, conn io.ReadWriter) error {
	s := &session{agent: a, bound: map[string][]byte{}}
	for {
		request, err := readMessage(conn)
		if err != nil {
			return err
		}
		if err := a.requests.Wait(ctx); err != nil {
			return err
		}
		if err := writeMessage(conn, s.answer(ctx, request)); err != nil {
			return err
		}
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > longestMessage {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	return err
}

// session is one connection. bound has the host's key for each ssh session that
// the host has proved to be its own.
type session struct {
	agent *Agent
	bound map[string][]byte
}

func (s *session) answer(ctx context.Context, request []byte) []byte {
	switch request[0] {
	case requestIdentities:
		return s.agent.list()
	case requestSignature:
		if answer, err := s.sign(ctx, request); err == nil {
			return answer
		}
	case requestExtension:
		if s.bind(request) == nil {
			return []byte{agentSuccess}
		}
	}
	return []byte{agentFailure}
}

// list names each key once, for however many hosts it is.
func (a *Agent) list() []byte {
	type identity struct {
		Key     []byte
		Comment string
	}
	var keys []byte
	seen := map[string]bool{}
	for _, g := range a.grants {
		blob := g.Key.Public.Marshal()
		if !seen[string(blob)] {
			keys = append(keys, ssh.Marshal(identity{blob, g.Key.Comment})...)
		}
		seen[string(blob)] = true
	}
	return append(ssh.Marshal(struct {
		Count uint32 `sshtype:"12"`
	}{uint32(len(seen))}), keys...)
}

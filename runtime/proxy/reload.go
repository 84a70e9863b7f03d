package proxy

import (
	"encoding/json"
	"errors"
	"strings"

	"carboy/runtime/proxy/policy"
)

// Reload is what an engine that runs said about a changed configuration.
type Reload struct {
	Hash string // of the configuration in force
	Err  error  // it took none, and the one before is in force
}

// Reloaded reads a line of an engine's log; not ok is one about something else.
func Reloaded(line []byte) (r Reload, ok bool) {
	var l struct {
		Event, Status, Detail, Method, Error string
		Hash                                 string `json:"config_hash"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return unreadable(string(line))
	}
	switch {
	case l.Event == policy.EventReload && l.Status == policy.Reloaded:
		return Reload{Hash: l.Hash}, true
	case l.Event == policy.EventReload:
		return Reload{Err: errors.New(policy.Escape(l.Detail))}, true
	case l.Event == "error" && l.Method == pipelockReload:
		return Reload{Err: errors.New(policy.Escape(l.Error))}, true
	}
	return Reload{}, false
}

// unreadable is what pipelock says of a file that it cannot take
// (internal/config/reload.go).
func unreadable(line string) (Reload, bool) {
	_, reason, ok := strings.Cut(line, "config reload failed: ")
	if !ok {
		return Reload{}, false
	}
	return Reload{Err: errors.New(policy.Escape(reason))}, true
}

// ConfigHash is what an engine calls a configuration.
func (e Engine) ConfigHash(files map[string][]byte) string {
	return policy.Hash(files[e.config])
}

// Reloads says whether an engine that runs takes a configuration in place of
// another. One that does not has to be started again.
func (e Engine) Reloads(from, to Config) bool { return e.reloads == nil || e.reloads(from, to) }

package proxy

import (
	"encoding/json"
	"strings"
	"time"

	"carboy/runtime/proxy/policy"
)

// Decision is what an engine decided, in one form for all, a contract with its
// readers. Nothing in it can drive a terminal, whoever wrote the log.
type Decision struct {
	Time    time.Time `json:"time"`
	Bottle  string    `json:"bottle"`
	Host    string    `json:"host"` // a valid one, or quoted; empty where the engine does not say
	Port    uint16    `json:"port,omitempty"`
	Method  string    `json:"method,omitempty"`
	Verdict string    `json:"verdict"`        // allow, deny, warn, or close for the end of a tunnel
	Rule    string    `json:"rule,omitempty"` // pattern that allows, or what of pipelock refused
	Bytes   int64     `json:"bytes"`          // both ways, as far as the engine counts them
	Reason  string    `json:"reason,omitempty"`
	// WantsRule says that it was refused because nothing allows that host and port.
	WantsRule bool `json:"wantsRule,omitempty"`
}

// Verdicts beside allow and deny.
const (
	Warned = "warn"
	Closed = "close"
)

// Decision reads a line of the engine's log; not ok is one about something else.
func (e Engine) Decision(line []byte) (d Decision, ok bool) {
	if d, ok = e.decided(line); !ok {
		return Decision{}, false
	}
	d.Host, d.Method, d.Rule, d.Reason = shownHost(d.Host), policy.Escape(d.Method), policy.Escape(d.Rule), policy.Escape(d.Reason)
	return d, true
}

// shownHost leaves what an engine has quoted already.
func shownHost(host string) string {
	if host == "" || strings.HasPrefix(host, `"`) {
		return policy.Escape(host)
	}
	return policy.Printable(host)
}

func allowlistDecision(line []byte) (Decision, bool) {
	var l policy.Decision
	if err := json.Unmarshal(line, &l); err != nil {
		return Decision{}, false
	}
	d := Decision{
		Time: l.Time, Host: l.Host, Port: l.Port, Method: l.Method, Verdict: l.Verdict, Rule: l.Rule,
		Bytes: l.Up + l.Down, Reason: l.Reason, WantsRule: policy.WantsRule(l),
	}
	switch l.Event {
	case policy.EventClose:
		d.Verdict = Closed
		return d, true
	case policy.EventDecision:
		if l.Verdict != policy.Allow {
			d.Verdict = policy.Deny
		}
		return d, true
	}
	return Decision{}, false
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"carboy/runtime/proxy/policy"
)

// engine decides and logs; forward.go and tunnel.go carry bytes.
type engine struct {
	policy    atomic.Pointer[policy.Policy]
	resolve   resolver
	transport *http.Transport // for requests; tunnels have their own connection
	idle      time.Duration

	logMu sync.Mutex
	log   io.Writer

	liveMu sync.Mutex
	live   map[*passage]struct{}
}

func newEngine(p policy.Policy, log io.Writer, idle time.Duration) *engine {
	e := &engine{resolve: &net.Resolver{PreferGo: true}, idle: idle, log: log, live: map[*passage]struct{}{}}
	e.policy.Store(&p)
	e.transport = &http.Transport{
		Proxy:       nil, // there is nothing behind us
		DialContext: e.dialForRequest, DisableCompression: true,
		MaxIdleConns: 256, MaxIdleConnsPerHost: 8, IdleConnTimeout: e.idle, ResponseHeaderTimeout: e.idle,
		MaxResponseHeaderBytes: maxHeader,
	}
	return e
}

// target is a normalised host and a port.
type target struct {
	host string
	port uint16
}

func (t target) String() string { return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) }

// parseTarget reads host:port; without one the port is fallback, and zero
// means that there has to be one.
func parseTarget(authority string, fallback uint16) (target, error) {
	host, text, err := net.SplitHostPort(authority)
	if err != nil && fallback != 0 {
		host, text, err = authority, strconv.Itoa(int(fallback)), nil
	}
	if err != nil {
		return target{}, denied{"not a host and a port"}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return target{}, denied{"not a port"}
	}
	name, err := policy.NormalizeHost(host)
	if err != nil {
		return target{}, denied{err.Error()}
	}
	return target{name, uint16(port)}, nil
}

// denied is a refusal by policy, with the reason that the client is told.
type denied struct{ reason string }

func (d denied) Error() string { return d.reason }

func isDenied(err error) bool {
	var d denied
	return errors.As(err, &d)
}

// status is the HTTP status for an error on the way to a target.
func status(err error) int {
	var timeout net.Error
	switch {
	case isDenied(err):
		return http.StatusForbidden
	case errors.As(err, &timeout) && timeout.Timeout():
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}

// told is what a client reads: no more of an error than it needs.
func told(err error) string {
	if isDenied(err) {
		return "blocked: " + policy.Escape(err.Error()) + "\n"
	}
	return "not reached: " + policy.Escape(err.Error()) + "\n"
}

// decide is by name, before anything is looked up.
func (e *engine) decide(t target) (rule string, err error) {
	rule, err = e.policy.Load().Decide(t.host, t.port)
	if err != nil {
		return "", denied{err.Error()}
	}
	return rule, nil
}

// passage is what a policy let through and another may end.
type passage struct {
	target target
	plain  bool       // its content was not asked to be TLS
	end    func()     // from any goroutine
	addr   netip.Addr // under liveMu
	ended  error      // under liveMu
}

// enter makes a passage to an address known to reload. It is decided on again,
// for a reload between the decision and now. The caller leaves, after an error
// too, and may enter again with another address.
func (e *engine) enter(p *passage, addr netip.Addr) error {
	e.liveMu.Lock()
	defer e.liveMu.Unlock()
	e.live[p] = struct{}{}
	p.addr = addr
	if p.ended == nil {
		p.ended = e.still(p)
	}
	return p.ended
}

// leave returns why the passage was ended, if it was. To leave twice is to
// leave.
func (e *engine) leave(p *passage) error {
	e.liveMu.Lock()
	defer e.liveMu.Unlock()
	delete(e.live, p)
	return p.ended
}

// still says whether the policy in force allows a passage.
func (e *engine) still(p *passage) error {
	inForce := e.policy.Load()
	if _, err := inForce.Decide(p.target.host, p.target.port); err != nil {
		return denied{err.Error()}
	}
	if err := inForce.Permit(p.addr); err != nil {
		return denied{err.Error()}
	}
	if p.plain && !inForce.Plain(p.target.host, p.target.port) {
		return denied{fmt.Sprintf("%s is no longer declared tcp", p.target)}
	}
	return nil
}

// reload puts a policy in force and ends what it does not allow.
func (e *engine) reload(p policy.Policy) {
	e.policy.Store(&p)
	e.transport.CloseIdleConnections() // to addresses that the old one permitted
	e.liveMu.Lock()
	defer e.liveMu.Unlock()
	for p := range e.live {
		if err := e.still(p); err != nil && p.ended == nil {
			p.ended = err
			p.end()
		}
	}
}

// take reloads, and says so once nothing is left that the policy does not allow.
func (e *engine) take(p policy.Policy, hash string) {
	e.reload(p)
	e.write(policy.ReloadLine{Time: time.Now().UTC(), Event: policy.EventReload, Status: policy.Reloaded, Hash: hash})
}

// keep tells of a policy that is none.
func (e *engine) keep(why error) {
	e.write(policy.ReloadLine{Time: time.Now().UTC(), Event: policy.EventReload, Status: "refused", Detail: policy.Escape(why.Error())})
}

// patience is how long a client may take to say what it wants.
func (e *engine) patience() time.Duration { return min(headerTime, e.idle) }

// decided logs a decision.
func (e *engine) decided(d policy.Decision) {
	d.Time = time.Now().UTC()
	e.write(d)
}

// write logs one line.
func (e *engine) write(l any) {
	line, err := json.Marshal(l)
	if err != nil {
		fmt.Fprintln(os.Stderr, "carboy-egress:", err)
		return
	}
	e.logMu.Lock()
	defer e.logMu.Unlock()
	if _, err := e.log.Write(append(line, '\n')); err != nil {
		fmt.Fprintln(os.Stderr, "carboy-egress: log:", err)
	}
}

// allowed logs what goes through.
func (e *engine) allowed(d policy.Decision) {
	d.Event, d.Verdict = policy.EventDecision, policy.Allow
	e.decided(d)
}

// failed logs what does not: refused, or allowed and not reached.
func (e *engine) failed(d policy.Decision, err error) {
	d.Event, d.Verdict, d.Reason = policy.EventDecision, policy.Allow, policy.Escape(detail(err))
	if isDenied(err) {
		d.Verdict = policy.Deny
	}
	e.decided(d)
}

// closed logs an end, with the reason if it was not the parties'.
func (e *engine) closed(d policy.Decision, why error) {
	d.Event, d.Verdict, d.Rule = policy.EventClose, "", ""
	if why != nil {
		d.Reason = policy.Escape(detail(why))
	}
	e.decided(d)
}

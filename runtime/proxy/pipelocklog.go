package proxy

import (
	"cmp"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"carboy/runtime/proxy/policy"
)

// pipelockLine is one of its log (internal/audit/logger.go).
type pipelockLine struct {
	Time                           time.Time
	Event, Method, URL, Target     string
	Scanner, Reason, Error, Action string
	Category, Detail               string
	Patterns                       []string
	ConnectHost                    string `json:"connect_host"`
	SNIHost                        string `json:"sni_host"`
	DenyMessage                    string `json:"deny_message"`
	SizeBytes                      int64  `json:"size_bytes"`
	TotalBytes                     int64  `json:"total_bytes"`
}

// pipelockDecision: it names no rule that allows, logs no request inside of TLS
// that it opens and lets pass, and of a paused bottle no hosts.
func pipelockDecision(line []byte) (Decision, bool) {
	var l pipelockLine
	if err := json.Unmarshal(line, &l); err != nil || l.Method == pipelockReload {
		return Decision{}, false
	}
	d := Decision{Time: l.Time, Method: l.Method, Rule: l.Scanner, Reason: l.Reason}
	d.Host, d.Port = l.where()
	switch l.Event {
	case "allowed", "forward_http":
		d.Verdict, d.Bytes = policy.Allow, l.SizeBytes
	case "tunnel_open":
		d.Verdict, d.Method = policy.Allow, http.MethodConnect
	case "tunnel_close":
		d.Verdict, d.Method, d.Bytes = Closed, http.MethodConnect, l.TotalBytes
	case "blocked":
		d.Verdict = policy.Deny
		d.WantsRule = slices.Contains([]string{"allowlist", "blocklist"}, l.Scanner)
	case "error": // allowed, and not reached
		d.Verdict, d.Reason = policy.Allow, l.Error
	case "sni_mismatch":
		d.Verdict, d.Method, d.Rule = policy.Deny, http.MethodConnect, "sni"
		d.Host, d.Reason = l.ConnectHost, strings.TrimSpace("TLS is for another host or none: "+l.Category+" "+l.SNIHost)
	case "kill_switch_deny":
		d.Verdict, d.Rule, d.Reason = policy.Deny, "paused", l.DenyMessage
	case "body_dlp", "header_dlp", "response_scan", "address_protection":
		d.Verdict, d.Rule, d.Reason = found(l.Action), l.Event, strings.Join(l.Patterns, ", ")
	case "anomaly":
		return anomaly(d)
	default:
		return Decision{}, false
	}
	return d, d.Host != "" || d.Rule == "paused"
}

func found(action string) string {
	if action == Block {
		return policy.Deny
	}
	return Warned
}

// anomaly is also how it tells of TLS that it opens.
func anomaly(d Decision) (Decision, bool) {
	d.Verdict = Warned
	if d.Rule == "tls_intercept" {
		d.Verdict, d.Rule, d.Reason = policy.Allow, "intercept", ""
	}
	return d, d.Rule != "" && d.Host != ""
}

// where is the host and port that a line is about.
func (l pipelockLine) where() (host string, port uint16) {
	host, text, err := net.SplitHostPort(l.Target)
	if err != nil {
		host = l.Target
	}
	if l.URL != "" {
		host, text = l.URL, ""
		if u, err := url.Parse(l.URL); err == nil && u.Host != "" {
			host, text = u.Hostname(), cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		}
	}
	if normal, err := policy.NormalizeHost(host); err == nil {
		host = normal
	}
	n, _ := strconv.ParseUint(text, 10, 16) // zero is none
	return host, uint16(n)
}

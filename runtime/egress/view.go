package egress

import (
	"cmp"
	"slices"

	"carboy/runtime/audit"
	"carboy/runtime/proxy/policy"
)

// View is what is told of a bottle's policy.
type View struct {
	Engine  string   `json:"engine"`
	Paused  bool     `json:"paused"`
	Hosts   []Host   `json:"hosts"`
	Private []string `json:"private"`           // addresses that may be reached
	Source  string   `json:"source,omitempty"`  // the manifest of the start
	Parents []string `json:"parents,omitempty"` // those that it extends
	// Audit is how far the bottle's record goes.
	Audit audit.Head `json:"audit"`
}

// Host is one that is allowed, or was at the start.
type Host struct {
	Host  string `json:"host"`
	TLS   string `json:"tls,omitempty"` // intercept, passthrough, or empty where it is none
	Since string `json:"since"`         // start or live
	State string `json:"state"`         // allowed, denied or paused
}

// View tells of the policy in force, and what of the start's is no longer.
func (l Live) View() View {
	v := View{Engine: l.Engine, Paused: l.Now.Paused, Hosts: []Host{}, Private: []string{}}
	for _, p := range l.Now.Private {
		v.Private = append(v.Private, p.String())
	}
	state, since := "allowed", map[bool]string{true: "start", false: "live"}
	if v.Paused {
		state = "paused"
	}
	for _, p := range unique(l.Now.Allow) {
		v.Hosts = append(v.Hosts, Host{p.String(), tlsOf(l.Now, p), since[slices.Contains(l.Start.Allow, p)], state})
	}
	for _, p := range unique(l.Start.Allow) {
		if !slices.Contains(l.Now.Allow, p) {
			v.Hosts = append(v.Hosts, Host{p.String(), tlsOf(l.Start, p), since[true], "denied"})
		}
	}
	return v
}

// TLS is how that of a host is treated, or was at the start, as Host has it. It is
// empty for one that is not among them.
func (v View) TLS(host string) string {
	i := slices.IndexFunc(v.Hosts, func(h Host) bool { return h.Host == host })
	if i < 0 {
		return ""
	}
	return v.Hosts[i].TLS
}

func unique(patterns []policy.Pattern) []policy.Pattern {
	patterns = slices.Clone(patterns)
	slices.SortFunc(patterns, func(a, b policy.Pattern) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(patterns)
}

func tlsOf(p policy.Policy, host policy.Pattern) string {
	switch {
	case host.Plain():
		return ""
	case slices.Contains(p.Intercept, host):
		return "intercept"
	default:
		return "passthrough"
	}
}

// Answer is a supervisor's, to a Request.
type Answer struct {
	View    View   `json:"view"`
	Error   string `json:"error,omitempty"`
	Invalid bool   `json:"invalid,omitempty"` // the request was
}

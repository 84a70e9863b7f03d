// Package proxy knows the engines that hold a bottle's only way out: how each
// is configured, started and asked for its health.
package proxy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml"

	"carboy/runtime/bottlespec"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/version"
)

// Names of the engines.
const (
	Pipelock  = "pipelock"
	Allowlist = "allowlist"
)

// PipelockImage is used unless the operator names another.
const PipelockImage = "ghcr.io/luckypipewrench/pipelock:2.3.0"

// Port is where every engine listens on its internal address.
const Port = 8888

// Engine is one kind of proxy. Its files go into bottlespec.ConfigDir; Path is
// the program in its container.
type Engine struct {
	Name  string
	Path  string
	Env   []string
	args  func(listen netip.AddrPort) []string
	files func(p policy.Policy, listen netip.AddrPort) (map[string][]byte, error)
}

// New returns the engine of that name, one of the constants above.
func New(name string) (Engine, error) {
	switch name {
	case Pipelock:
		return pipelock(), nil
	case Allowlist:
		return allowlist(), nil
	default:
		return Engine{}, fmt.Errorf("no proxy engine %q", name)
	}
}

// Command is the program and its arguments.
func (e Engine) Command(listen netip.AddrPort) []string {
	return append([]string{e.Path}, e.args(listen)...)
}

// Files renders the configuration directory.
func (e Engine) Files(p policy.Policy, listen netip.AddrPort) (map[string][]byte, error) {
	return e.files(p, listen)
}

func allowlist() Engine {
	return Engine{
		Name: Allowlist,
		Path: "/carboy-egress",
		args: func(listen netip.AddrPort) []string {
			return []string{"--listen", listen.String(), "--config", bottlespec.ConfigDir, "--build", version.Build}
		},
		files: func(p policy.Policy, _ netip.AddrPort) (map[string][]byte, error) {
			b, err := json.MarshalIndent(p, "", "  ")
			return map[string][]byte{"policy.json": b}, err
		},
	}
}

func pipelock() Engine {
	return Engine{
		Name: Pipelock,
		Path: "/pipelock",
		Env:  []string{"HOME=/tmp", "PIPELOCK_HOME=/tmp/.pipelock"},
		args: func(listen netip.AddrPort) []string {
			return []string{"run", "--config", bottlespec.ConfigDir + "/pipelock.yaml", "--listen", listen.String()}
		},
		files: func(p policy.Policy, listen netip.AddrPort) (map[string][]byte, error) {
			b, err := yaml.Marshal(pipelockConfig(p, listen))
			return map[string][]byte{"pipelock.yaml": b}, err
		},
	}
}

// Limits of pipelock that its defaults set too low for an agent: tunnels end
// after 300 s and a domain gets 60 requests a minute (v2.3.0,
// internal/proxy/forward.go and internal/config/defaults.go).
const (
	tunnelSeconds     = 7 * 24 * 3600
	idleSeconds       = 600
	requestsPerMinute = 100_000
)

type object = map[string]any

// pipelockConfig writes every security key out: omitted ones take defaults
// that differ from its documentation (v2.3.0, internal/config/load.go), and
// unknown keys are refused at start.
func pipelockConfig(p policy.Policy, listen netip.AddrPort) object {
	hosts := make([]string, 0, len(p.Allow))
	for _, a := range p.Allow {
		hosts = append(hosts, a.Host())
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts) // one may be allowed on more ports
	if len(hosts) == 0 {
		// Strict mode refuses an empty list; this name never exists (RFC 2606).
		hosts = append(hosts, "nothing.invalid")
	}
	private := make([]string, 0, len(p.Private))
	for _, prefix := range p.Private {
		private = append(private, prefix.String())
	}
	return object{
		"version":       1,
		"mode":          "strict",
		"enforce":       true,
		"api_allowlist": hosts,
		"forward_proxy": object{
			"enabled": true, "sni_verification": true,
			"max_tunnel_seconds": tunnelSeconds, "idle_timeout_seconds": idleSeconds,
		},
		"fetch_proxy": object{
			"listen":     listen.String(),
			"monitoring": object{"max_requests_per_minute": requestsPerMinute},
		},
		"websocket_proxy":       object{"enabled": false},
		"dlp":                   object{"include_defaults": true, "scan_env": false},
		"request_body_scanning": object{"enabled": true, "action": "block", "scan_headers": true},
		"response_scanning":     object{"enabled": true, "action": "warn"},
		"tls_interception":      object{"enabled": false},
		"ssrf":                  object{"ip_allowlist": private},
		"kill_switch":           object{"enabled": false},
		// Off the agent's port.
		"metrics_listen": net127(9091),
		"logging":        object{"format": "json", "output": "stdout", "include_allowed": true, "include_blocked": true},
	}
}

func net127(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

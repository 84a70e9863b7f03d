package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/goccy/go-yaml"

	"carboy/runtime/bottlespec"
	"carboy/runtime/initproto"
	"carboy/runtime/proxy/policy"
)

// All that carboy knows about pipelock, v2.3.0, is in this file.

// PipelockImage is used unless the operator names another.
const PipelockImage = "ghcr.io/luckypipewrench/pipelock:2.3.0"

// In its container's /run, a tmpfs, and not below the configuration, whose
// directory is the host's.
const (
	heldDir         = "/run/carboy/"
	heldCertificate = heldDir + "ca.pem"
	heldKey         = heldDir + "ca-key.pem"
	heldKnown       = heldDir + "secrets"
)

const pipelockFile = "pipelock.yaml"

func pipelock() Engine {
	return Engine{
		Name: Pipelock,
		Path: "/pipelock",

		decided: pipelockDecision, config: pipelockFile, reloads: pipelockReloads,
		// It holds whole messages: what it has freed must be free before its
		// container's limit is reached.
		Env: []string{"HOME=/tmp", "PIPELOCK_HOME=/tmp/.pipelock", "GOMEMLIMIT=384MiB"},
		args: func(listen netip.AddrPort) []string {
			return []string{"run", "--config", bottlespec.ConfigDir + "/" + pipelockFile, "--listen", listen.String()}
		},
		files: func(c Config) (map[string][]byte, error) {
			b, err := yaml.Marshal(pipelockConfig(c))
			return map[string][]byte{pipelockFile: b}, err
		},
		held: pipelockHeld,
	}
}

// Limits of pipelock that its defaults set too low for an agent: tunnels end
// after 300 s, a domain gets 60 requests a minute, and a response over plain HTTP
// 30 s and 10 MB, of which the rest is cut off (internal/proxy/forward.go and
// internal/config/defaults.go). What it scans is held in memory, up to five times
// (measured), and takes a second or more for each MB.
const (
	tunnelSeconds     = 7 * 24 * 3600
	idleSeconds       = 3600
	responseSeconds   = 3600
	requestsPerMinute = 100_000
	megabyte          = 1 << 20
	largestMessage    = 32 // MiB
)

type object = map[string]any

// pipelockConfig writes every security key out: omitted ones take defaults
// that differ from its documentation (internal/config/load.go), and unknown keys
// are refused at start.
func pipelockConfig(c Config) object {
	private := make([]string, 0, len(c.Policy.Private))
	for _, prefix := range c.Policy.Private {
		private = append(private, prefix.String())
	}
	hosts := hostsOf(c.Policy.Allow)
	if len(hosts) == 0 || c.Policy.Paused {
		// Strict mode refuses an empty list; this name never exists (RFC 2606).
		hosts = []string{"nothing.invalid"}
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
			"listen":          c.Listen.String(),
			"timeout_seconds": responseSeconds, "max_response_mb": largestMessage,
			// It takes *.a.test for a.test as well (scanner.MatchDomain).
			"monitoring": object{"max_requests_per_minute": requestsPerMinute, "blocklist": c.Policy.Apexes()},
		},
		"websocket_proxy":       object{"enabled": false},
		"dlp":                   lookedFor(c),
		"request_body_scanning": scanned(c),
		"response_scanning": object{"enabled": true, "action": Warn,
			"sse_streaming": object{"enabled": true, "action": Warn, "max_event_bytes": megabyte}},
		"tls_interception": intercepted(c),
		"ssrf":             object{"ip_allowlist": private},
		"kill_switch":      object{"enabled": c.Policy.Paused, "message": "the bottle's egress is paused"},
		// Off the agent's port.
		"metrics_listen": net127(9091),
		"logging":        object{"format": "json", "output": "stdout", "include_allowed": true, "include_blocked": true},
	}
}

func net127(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

func hostsOf(patterns []policy.Pattern) []string {
	hosts := make([]string, 0, len(patterns))
	for _, p := range patterns {
		hosts = append(hosts, p.Host())
	}
	slices.Sort(hosts)
	return slices.Compact(hosts) // one may be allowed on more ports
}

// ShortestSecret that is looked for, in bytes: what is shorter is in half of all
// messages.
const ShortestSecret = 8

func lookedFor(c Config) object {
	dlp := object{"include_defaults": true, "scan_env": false, "min_env_secret_length": ShortestSecret}
	if c.Known {
		dlp["secrets_file"] = heldKnown
	}
	return dlp
}

// scanned is about requests beyond their URL, which in enforcing mode is always
// blocked for a secret in it. The default header mode looks at few headers, and
// the default list of those to ignore has User-Agent; an empty one means that.
func scanned(c Config) object {
	return object{
		"enabled": true, "action": cmp.Or(c.DLP, Block), "max_body_bytes": largestMessage * megabyte,
		"scan_headers": true, "header_mode": "all", "ignore_headers": []string{"Content-Length"},
	}
}

// intercepted names those that are not: pipelock opens the TLS of all others.
func intercepted(c Config) object {
	if len(c.Policy.Intercept) == 0 {
		return object{"enabled": false}
	}
	return object{
		"enabled": true, "ca_cert": heldCertificate, "ca_key": heldKey, "passthrough_domains": hostsOf(c.Policy.Passthrough()),
		"cert_ttl": "24h", "max_response_bytes": largestMessage * megabyte,
	}
}

// pipelockReload is how it names its reloads in errors (internal/cli/runtime/run.go).
const pipelockReload = "CONFIG_RELOAD"

// pipelockReloads: in strict mode it refuses what it takes for a step back
// (internal/config/reloadwarn.go).
func pipelockReloads(from, to Config) bool {
	if len(from.Policy.Intercept) == 0 {
		return len(to.Policy.Intercept) == 0
	}
	before := hostsOf(from.Policy.Passthrough())
	return len(to.Policy.Intercept) > 0 && !slices.ContainsFunc(hostsOf(to.Policy.Passthrough()), func(host string) bool { return !slices.Contains(before, host) })
}

func pipelockHeld(s Secrets) ([]initproto.File, error) {
	var files []initproto.File
	if len(s.Key) > 0 {
		files = append(files, initproto.File{Path: heldCertificate, Data: s.Certificate}, initproto.File{Path: heldKey, Data: s.Key})
	}
	if len(s.Known) == 0 {
		return files, nil
	}
	lines := secretLines(s.Known)
	if len(lines) > mostSecrets {
		return nil, fmt.Errorf("the bottle's secrets have %d lines, pipelock can look for %d: %w", len(lines), mostSecrets, errdefs.ErrInvalidArgument)
	}
	return append(files, initproto.File{Path: heldKnown, Data: []byte(strings.Join(lines, "\n") + "\n")}), nil
}

// Bounds of a secrets file (internal/scanner/scanner.go, LoadSecretsFile): what
// goes over them is not looked for, and no error.
const (
	mostSecrets   = 1000
	longestSecret = 4096 // bytes
)

// Searchable says that pipelock can look for a value, or for a part of it.
func Searchable(value string) bool { return len(secretLines([]string{value})) > 0 }

// secretLines are the values as lines of a secrets file, of which blanks at the
// ends are cut off and those that begin with # are passed over. It finds what is
// part of a message, so that a part of a secret stands for all of it.
func secretLines(values []string) []string {
	var lines []string
	for _, value := range values {
		for line := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 }) {
			for part := range slices.Chunk([]byte(line), longestSecret) {
				if part := strings.TrimSpace(strings.TrimLeft(string(part), "# \t\v\f")); len(part) >= ShortestSecret {
					lines = append(lines, part)
				}
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

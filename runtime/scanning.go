package runtime

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"carboy/runtime/authority"
	"carboy/runtime/manifest"
	"carboy/runtime/manifest/presets"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

// intercept is a manifest's word for TLS that is opened; the other one is
// passthrough.
const intercept = "intercept"

// setScanning settles what the proxy reads. An engine that reads nothing is not
// asked to: nobody shall believe that it does.
func (p *Plan) setScanning(r Request, b manifest.Bottle) error {
	dlp := cmp.Or(r.DLP, b.Egress.DLP)
	if !slices.Contains([]string{"", proxy.Block, proxy.Warn}, dlp) {
		return inEgress(r.DLP == "", b.At("egress", "dlp"), invalid("dlp %q: choose %s or %s", dlp, proxy.Block, proxy.Warn))
	}
	words, err := tlsWords(r, b)
	if err != nil {
		return err
	}
	p.interceptAll = b.Egress.TLS == intercept
	for _, pattern := range p.policy.Allow {
		if word := words[pattern]; word == intercept || word == "" && b.Egress.TLS == intercept && !pattern.Plain() {
			p.policy.Intercept = append(p.policy.Intercept, pattern)
			p.Intercept = append(p.Intercept, pattern.String())
		}
	}
	p.Intercept = sortedSet(p.Intercept)
	if err := p.policy.CheckIntercept(); err != nil {
		return inEgress(len(r.Intercept) == 0, b.At("egress"), invalid("%w", err))
	}
	if p.Proxy.Engine == proxy.Allowlist {
		if dlp != "" || len(p.Intercept) > 0 || b.Egress.TLS == intercept {
			return inEgress(r.DLP == "" && len(r.Intercept) == 0, b.At("egress"), invalid("dlp and intercept need pipelock: the allowlist engine reads no content"))
		}
		return nil
	}
	p.DLP = cmp.Or(dlp, proxy.Block)
	return p.checkLogin(b)
}

// checkLogin: pipelock cannot let one secret go to one host.
func (p *Plan) checkLogin(b manifest.Bottle) error {
	if p.Login == "" || p.DLP != proxy.Block {
		return nil
	}
	preset, _ := presets.Find(p.Provider)
	for _, h := range preset.Hosts {
		opened := slices.ContainsFunc(p.policy.Intercept, func(i policy.Pattern) bool { return i.Match(h.Host, 443) })
		if h.Login && opened {
			return inEgress(true, b.At("egress"), invalid("%s is to be intercepted, and the agent's login %s would be blocked there: let that host pass through, or use dlp: %s",
				h.Host, p.Login, proxy.Warn))
		}
	}
	return nil
}

// inEgress names the manifest that an error is about, if it is about one.
func inEgress(written bool, at manifest.Place, err error) error {
	if !written || at.File == "" {
		return err
	}
	return at.Fault(fmt.Errorf("egress: %w", err))
}

// tlsWords are what was said of single patterns.
func tlsWords(r Request, b manifest.Bottle) (map[policy.Pattern]string, error) {
	words := map[policy.Pattern]string{}
	said := slices.Clone(b.Egress.Allow)
	for _, host := range r.Intercept {
		said = append(said, manifest.Allowed{Host: host, TLS: intercept})
	}
	for _, a := range said {
		pattern, err := policy.ParsePattern(a.Host)
		if err != nil {
			return nil, inEgress(true, b.At("egress", "allow", a.Host), invalid("%w", err))
		}
		if before := words[pattern]; before != "" && a.TLS != "" && before != a.TLS {
			return nil, inEgress(true, b.At("egress", "allow", a.Host), invalid("%s: both %s and %s were asked for", pattern, before, a.TLS))
		}
		words[pattern] = cmp.Or(words[pattern], a.TLS)
	}
	return words, nil
}

// newAuthority is zero for a bottle whose proxy opens no TLS. The key exists in
// this process and in the memory of the proxy's container.
func (p *Plan) newAuthority(instance string, bound time.Duration) (authority.Authority, error) {
	if len(p.policy.Intercept) == 0 {
		return authority.Authority{}, nil
	}
	a, err := authority.New(instance, p.policy.Intercept, bound)
	if err != nil {
		return authority.Authority{}, fmt.Errorf("make the bottle's certificate authority: %w", err)
	}
	return *a, nil
}

// noteAuthority is for who wonders about a certificate that the agent was shown.
func (b *Bottle) noteAuthority() {
	if b.Authority != "" {
		b.proxyLog.note("TLS of " + strings.Join(b.plan.Intercept, " ") + " is opened with the bottle's own authority, SHA-256 " + b.Authority)
	}
}

func (b *Bottle) engineConfig(p policy.Policy) proxy.Config {
	return proxy.Config{Policy: p, Listen: b.listen(), DLP: b.plan.DLP, Known: len(b.plan.knownSecrets()) > 0}
}

func (b *Bottle) engineSecrets() proxy.Secrets {
	return proxy.Secrets{Certificate: b.authority.Certificate, Key: b.authority.Key, Known: b.plan.knownSecrets()}
}

func (b *Bottle) engineUser() string { return fmt.Sprintf("%d:%d", b.ProxyUser, b.ProxyUser) }

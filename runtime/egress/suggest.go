package egress

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
)

// mostSuggested bounds what an agent can have suggested.
const mostSuggested = 100

// Refused collects what was refused because no rule allows it. Its zero value is
// empty.
type Refused struct {
	times map[string]int // by pattern
	more  bool           // than are kept
}

// Add takes decisions in their order: what was allowed in the end is not refused.
func (r *Refused) Add(d proxy.Decision) {
	pattern := patternOf(d)
	switch {
	case pattern == "":
	case d.Verdict == policy.Allow:
		delete(r.times, pattern)
	case !d.WantsRule || d.Verdict != policy.Deny:
	case r.times[pattern] == 0 && len(r.times) == mostSuggested:
		r.more = true
	default:
		if r.times == nil {
			r.times = map[string]int{}
		}
		r.times[pattern]++
	}
}

// patternOf is empty for what is never suggested: an address, a name without a dot,
// or none at all.
func patternOf(d proxy.Decision) string {
	if name, err := policy.NormalizeHost(d.Host); err != nil || name != d.Host || !strings.Contains(name, ".") {
		return ""
	}
	if _, err := netip.ParseAddr(d.Host); err == nil {
		return ""
	}
	text := d.Host
	switch d.Port {
	case 0, 80, 443:
	case 22:
		text = "tcp:" + text + ":22"
	default:
		text += ":" + strconv.Itoa(int(d.Port))
	}
	pattern, err := policy.ParsePattern(text)
	if err != nil || pattern.String() != text {
		return ""
	}
	return text
}

// Empty says that there is nothing to suggest.
func (r *Refused) Empty() bool { return len(r.times) == 0 }

// Manifest is the part of a bottle's manifest that would allow it.
func (r *Refused) Manifest() string {
	var b strings.Builder
	b.WriteString("egress:\n  allow:\n")
	for _, pattern := range slices.Sorted(maps.Keys(r.times)) {
		shown := pattern
		if pattern[0] < 'a' || pattern[0] > 'z' {
			shown = strconv.Quote(pattern) // 1.e5 would be a number
		}
		fmt.Fprintf(&b, "    - %s # refused: %d\n", shown, r.times[pattern])
	}
	if r.more {
		b.WriteString("    # and more\n")
	}
	return b.String()
}

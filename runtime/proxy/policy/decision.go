package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// What a Decision tells of, and how it was decided.
const (
	EventDecision = "decision"
	EventClose    = "close"
	Allow         = "allow"
	Deny          = "deny"
)

// File is the name of a policy in the allowlist engine's directory.
const File = "policy.json"

// What both engines log of a policy that was changed while they run: this event,
// with a config_hash, the SHA-256 of the file, where the status is Reloaded.
const (
	EventReload = "config_reload"
	Reloaded    = "success"
)

// Hash is how a configuration file is known in such a line.
func Hash(file []byte) string {
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:])
}

// ReloadLine is the allowlist engine's line of that.
type ReloadLine struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`
	Status string    `json:"status"`
	Detail string    `json:"detail,omitempty"` // why it was not taken
	Hash   string    `json:"config_hash,omitempty"`
}

// Decision is one line of the allowlist engine's log. Every request and tunnel
// has one line with Event "decision", written when it is decided: an agent's
// long-lived tunnel is seen while it lives. An allowed one that then could not
// be reached has a Reason. A tunnel has a second line, with Event "close", the
// bytes that went each way, its life in milliseconds and, where it did not end
// by itself, a Reason; a request has it only when it fails after its decision.
type Decision struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"`
	Verdict string    `json:"verdict,omitempty"` // allow or deny
	Method  string    `json:"method"`
	Host    string    `json:"host"` // through Printable
	Port    uint16    `json:"port,omitempty"`
	Addr    string    `json:"addr,omitempty"` // dialled
	Rule    string    `json:"rule,omitempty"`
	Reason  string    `json:"reason,omitempty"` // through Escape
	Up      int64     `json:"bytes_up,omitempty"`
	Down    int64     `json:"bytes_down,omitempty"`
	Millis  int64     `json:"ms,omitempty"`
}

// mostShown bounds what an agent can put into one field.
const mostShown = longestName

// Printable makes a host that an agent chose safe to show: a normalised one is
// returned as it is, all else quoted, in ASCII and cut.
func Printable(s string) string {
	if host, err := NormalizeHost(s); err == nil && host == s {
		return s
	}
	quoted := strconv.QuoteToASCII(s)
	if len(quoted) > mostShown {
		quoted = quoted[:mostShown-4] + `..."`
	}
	return quoted
}

// Escape makes any other text safe to show: ASCII, no control characters, no
// marks that turn the direction of writing, cut. Text that is safe is returned
// as it is.
func Escape(s string) string {
	s = Visible(s)
	if len(s) > mostShown {
		s = s[:mostShown-3] + "..."
	}
	return s
}

// OneLine is Visible of a text that may have several lines.
func OneLine(s string) string {
	return Visible(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}

// Visible is Escape without a bound on the length.
func Visible(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return s
	}
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}

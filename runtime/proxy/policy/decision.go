package policy

import (
	"strconv"
	"strings"
	"time"
)

// Decision is one line of the allowlist engine's log: what was asked and what
// became of it. A tunnel or request that was allowed has a second line, with
// Event "close" and the bytes that went each way.
type Decision struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"`             // decision or close
	Verdict string    `json:"verdict,omitempty"` // allow or deny
	Method  string    `json:"method"`
	Host    string    `json:"host"` // a normalised name, or quoted
	Port    uint16    `json:"port,omitempty"`
	Addr    string    `json:"addr,omitempty"` // dialled
	Rule    string    `json:"rule,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Up      int64     `json:"bytes_up,omitempty"`
	Down    int64     `json:"bytes_down,omitempty"`
	Millis  int64     `json:"ms,omitempty"`
}

// Printable makes text that an agent chose safe to show: a valid host as it
// is, all else quoted in ASCII and cut.
func Printable(s string) string {
	if host, err := NormalizeHost(s); err == nil && host == s {
		return s
	}
	const most = 253
	quoted := strconv.QuoteToASCII(s)
	if len(quoted) > most {
		quoted = strings.ToValidUTF8(quoted[:most], "") + `..."`
	}
	return quoted
}

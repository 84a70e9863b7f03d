// Package inside is what a probe inside of an agent's container is asked to do
// and what it says. It runs as the agent's user, so that a live agent may lie in
// its name: what it proves holds before the agent starts, and what it finds
// holds always.
package inside

import "net/netip"

// Errand is what the probe is to try, on its standard input as JSON.
type Errand struct {
	Targets []netip.AddrPort `json:"targets"`
	Payload []byte           `json:"payload"` // of UDP
	Proxy   netip.AddrPort   `json:"proxy"`
	Denied  string           `json:"denied"`            // HOST:PORT
	Allowed string           `json:"allowed,omitempty"` // likewise; empty is none
}

// Account is what it says, on its standard output.
type Account struct {
	Attempts []Attempt `json:"attempts"`
	Raw      []Outcome `json:"raw"` // sockets that could send any packet
	Denied   Tunnel    `json:"denied"`
	Allowed  Tunnel    `json:"allowed"`

	UID        int       `json:"uid"`
	NoNewPrivs bool      `json:"noNewPrivs"`
	Seccomp    int       `json:"seccomp"`   // 2 is a filter (prctl(2))
	Processes  []Process `json:"processes"` // all that it sees

	Links       []string       `json:"links"`
	Routes      []netip.Prefix `json:"routes"`    // by IPv4
	IPv6        []string       `json:"ipv6"`      // addresses, but loopback's
	Resolvers   []string       `json:"resolvers"` // of /etc/resolv.conf
	HostSockets []string       `json:"hostSockets"`
	Devices     []string       `json:"devices"`  // beside the usual ones
	Writable    []string       `json:"writable"` // switches of the kernel
	Errors      []string       `json:"errors"`   // what could not be looked at
}

// Attempt is a conversation by an ordinary socket.
type Attempt struct {
	To       netip.AddrPort `json:"to"`
	Protocol string         `json:"protocol"`
	Reached  bool           `json:"reached"` // it was answered, be it by a refusal
	Error    string         `json:"error,omitempty"`
}

// Outcome is something that was tried.
type Outcome struct {
	What  string `json:"what"`
	Error string `json:"error,omitempty"` // empty: it worked
}

// Tunnel is a CONNECT through the proxy.
type Tunnel struct {
	Open  bool   `json:"open"`
	Said  bool   `json:"said"` // the proxy refused it in words
	Error string `json:"error,omitempty"`
}

// Process is one with its capabilities, as bits.
type Process struct {
	PID      int    `json:"pid"`
	Has      uint64 `json:"has"` // effective, permitted, inheritable and ambient together
	Bounding uint64 `json:"bounding"`
}

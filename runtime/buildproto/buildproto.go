// Package buildproto is what carboy and the two halves of carboy-buildkit say
// to each other. The controller half runs as root and is given a Controller;
// the client half runs as the invoker and is given a Build. Each has a link to
// carboy, and they have a wire for gRPC between them. The end of a link is the
// order to end.
package buildproto

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// Descriptors that a half inherits.
const (
	LinkFD = 3
	WireFD = 4 // none where a client speaks to another's buildkitd
)

// Files in a controller's root.
const (
	LockFile    = "lock"    // flock(2), held while a controller works
	RunningFile = "running" // there while one works: who finds it without the lock cleans up
)

// The words that choose a half.
const (
	ServeCommand = "serve"
	BuildCommand = "build"
)

// Networks of RUN.
const (
	NetworkEgress = "egress"
	NetworkNone   = "none"
	NetworkHost   = "host"
)

// Networks are all of them.
var Networks = []string{NetworkEgress, NetworkNone, NetworkHost}

// Controller is what the controller half works with.
type Controller struct {
	Root        string // holds the build cache's records; its lock is the build's
	Address     string // containerd's socket
	Namespace   string
	Snapshotter string
	Network     string
	AppArmor    string   // profile of RUN; empty is none
	SELinux     bool     // RUN gets labels
	Pids        int64    // most processes of one RUN
	Memory      int64    // most bytes of one RUN
	Resolvers   []string // of RUN in the egress network
	Insecure    []string // registries spoken to by plain HTTP
	Invoker     int      // uid of the client half
	Keep        int64    // bytes of cache to keep at the end
	Boot        string   // id of the host's boot
	Work        string   // WorkBuild, WorkPrune or WorkSweep
}

// What a controller is started for.
const (
	WorkBuild = "build"
	WorkPrune = "prune" // removes what exceeds Keep
	WorkSweep = "sweep" // removes what a killed one left running and mounted
)

// Ask is what a controller says to carboy.
type Ask struct {
	Network bool   `json:",omitempty"` // RUN needs the egress network: an Answer follows
	Done    bool   `json:",omitempty"` // the last message
	Pruned  int64  `json:",omitempty"` // bytes
	Error   string `json:",omitempty"` // with Done
}

// Answer is a network namespace that lives as long as carboy.
type Answer struct {
	Path  string
	Error string
}

// Build is what a client half is to have built.
type Build struct {
	Buildkit  string // address of an operator's buildkitd; else the wire is used
	Context   string // a directory
	File      string // the Dockerfile; empty is Dockerfile in Context
	Names     []string
	Target    string
	Args      map[string]string
	Secrets   []Secret
	SSH       []Agent
	Platforms []string
	Network   string
	Hosts     []string // NAME:ADDRESS
	Logins    string   // Docker configuration or its directory; empty is the usual place
	Progress  string
	NoCache   bool
	Pull      bool
	Quiet     bool
}

// Secret is shown to RUN by its id.
type Secret struct {
	ID    string
	File  string // opened by the client half
	Value []byte // where File is empty
}

// Agent is an ssh-agent that RUN may use.
type Agent struct {
	ID    string
	Paths []string // sockets or keys; empty is $SSH_AUTH_SOCK
}

// Result is how a build went.
type Result struct {
	Digest string `json:",omitempty"`
	Error  string `json:",omitempty"`
	Usage  bool   `json:",omitempty"` // the request was wrong
}

// Link is one end of a connection of messages.
type Link struct {
	conn net.Conn
	in   *json.Decoder
}

// limit bounds what one end takes from the other, in bytes.
const limit = 16 << 20

// NewLink takes the connection over.
func NewLink(conn net.Conn) *Link {
	return &Link{conn, json.NewDecoder(io.LimitReader(conn, limit))}
}

// Inherited is a link, or a wire, by its descriptor.
func Inherited(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "inherited")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, os.ErrInvalid)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("descriptor %d: %w", fd, err), f.Close())
	}
	return conn, f.Close()
}

// Send writes one message.
func (l *Link) Send(v any) error { return json.NewEncoder(l.conn).Encode(v) }

// Receive reads one message, or fails with io.EOF at the end.
func (l *Link) Receive(v any) error { return l.in.Decode(v) }

// Close ends the link.
func (l *Link) Close() error { return l.conn.Close() }

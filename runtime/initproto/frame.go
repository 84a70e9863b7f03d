// Package initproto is the protocol between a bottle's supervisor and
// carboy-init, the first process of each of its two containers. It carries
// files and secret environment in, commands and their standard streams,
// signals and terminal sizes, and exit statuses out, over one pair of pipes.
// `carboy exec` speaks it to the supervisor, which relays.
//
// It is not a remote shell: it has no names, no authentication and no
// encryption. Whoever holds the pipes is the supervisor. Each side treats the
// other as hostile: lengths are bounded, a stream carries no more than its
// window, and any breach ends the connection.
package initproto

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"carboy/runtime/version"
)

// Version is the protocol's version, exchanged in the first frame.
const Version = 1

// Minor grows with each kind of frame that a peer may send to a supervisor: one
// that knows fewer is not sent it.
const Minor = 1

// MaxPayload bounds one frame in bytes; a file or an environment has to fit.
const MaxPayload = 4 << 20

// Chunk is the largest piece of a stream that one frame carries, in bytes.
const Chunk = 32 << 10

// Window is how many bytes of one stream may be under way unacknowledged; a
// chunk costs a little more than its length.
const Window = 256 << 10

// ErrProtocol marks a breach of the protocol by the other side.
var ErrProtocol = errors.New("protocol breach")

// Kind says what a frame is.
type Kind uint8

// Kinds of frames; the arrow shows the direction, i is carboy-init.
const (
	KindHello   Kind = iota + 1 // both: Hello
	KindFile                    // -> i: File, answered by KindDone
	KindSeal                    // -> i: Seal, answered by KindDone
	KindHold                    // -> i: no command any more, and stay after end of file
	KindDone                    // <- i: Done
	KindStart                   // -> i: Spec, answered by KindExited alone
	KindStdin                   // -> i: bytes; an empty payload is the end of the stream
	KindSignal                  // -> i: one byte, the signal's number
	KindResize                  // -> i: Size
	KindStdout                  // <- i: bytes
	KindStderr                  // <- i: bytes
	KindCredit                  // both: Kind of the stream in one byte, 4 bytes big-endian count
	KindExited                  // <- i: Exit, after the last byte of the process's output
	KindStarted                 // <- i: the command runs; not sent for one that cannot be started
	KindAttach                  // peer -> supervisor: Attach, then as for a command of the peer's own
	KindStop                    // peer -> supervisor: Stop, about an attached command
	KindList                    // -> i: no payload, answered by KindDone with Processes
	KindListen                  // -> i: Listen, answered by KindDone
	KindOpen                    // <- i: somebody connected; the id, i's choice, is above FirstConn
	KindData                    // both: bytes of a connection
	KindClose                   // both: the end of a connection, both ways
	KindSteer                   // peer -> supervisor (minor 1): JSON of package egress, answered by KindDone with Answer
)

// Frame is one message. ID numbers the process (or the request) it is about,
// and is chosen by the side that asks: below FirstConn by a supervisor, from
// there on by carboy-init.
type Frame struct {
	Kind    Kind
	ID      uint32
	Payload []byte
}

// Hello opens each direction of a connection.
type Hello struct {
	Version int    `json:"version"`
	Minor   int    `json:"minor,omitempty"`
	Build   string `json:"build"`
}

// File is written before the seal, inside the container, below its root. What
// stood at Path is replaced.
type File struct {
	// Path may begin with ~/, the home directory of Owner.
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
	// Owner is resolved in the container like Spec.User. Missing parents are made
	// with mode 0755, and are the owner's below his home directory, else root's.
	Owner string `json:"owner,omitempty"`
	Data  []byte `json:"data"`
	// Merge puts the members of Data, a JSON object, into the object that is
	// there, and objects in it into those that are there; it goes over them.
	Merge bool `json:"merge,omitempty"`
	// After are files of the container, of which the first that is there comes
	// before Data.
	After []string `json:"after,omitempty"`
	// Append keeps what is at Path, before Data. Nothing is made where Path's
	// directory is not there.
	Append bool `json:"append,omitempty"`
	// Link makes a symbolic link to it, instead of a file.
	Link string `json:"link,omitempty"`
}

// Listen opens a unix socket before the seal, at a path inside the container,
// for Owner alone. Every connection to it is passed on.
type Listen struct {
	Path  string `json:"path"`
	Owner string `json:"owner"` // as File.Owner
}

// Seal ends provisioning: carboy-init drops every capability that neither its
// own work nor a command needs. Keep lists the capability numbers a command
// run as root may have; it is empty for a bottle whose agent is not root.
type Seal struct {
	Keep []int `json:"keep"`
}

// Done answers a request; an empty Error means it was carried out.
type Done struct {
	Error     string   `json:"error,omitempty"`
	Processes []Listed `json:"processes,omitempty"`
	// Answer is a supervisor's own.
	Answer json.RawMessage `json:"answer,omitempty"`
}

// Spec is a command to run. The environment may hold secrets: it travels in
// memory only.
type Spec struct {
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	User string   `json:"user"` // name or number, with an optional :group
	TTY  bool     `json:"tty"`
	Size Size     `json:"size"`
	// Stdin says that a standard input will be sent; otherwise it is empty.
	Stdin bool `json:"stdin"`
	// NotRoot refuses a user that turns out to be uid 0 in the container.
	NotRoot bool `json:"notRoot,omitempty"`
	// Forwarded are names of Env whose values no log is to show. They are for who
	// relays: carboy-init is told none.
	Forwarded []string `json:"forwarded,omitempty"`
}

// wireSpec carries what need not be UTF-8 as bytes: JSON would change it.
type wireSpec struct {
	plainSpec
	Args [][]byte `json:"args"`
	Env  [][]byte `json:"env"`
	Dir  []byte   `json:"dir"`
}

type plainSpec Spec

// MarshalJSON implements json.Marshaler.
func (s Spec) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireSpec{plainSpec: plainSpec(s), Args: toBytes(s.Args), Env: toBytes(s.Env), Dir: []byte(s.Dir)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Spec) UnmarshalJSON(b []byte) error {
	var w wireSpec
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*s = Spec(w.plainSpec)
	s.Args, s.Env, s.Dir = toStrings(w.Args), toStrings(w.Env), string(w.Dir)
	return nil
}

func toBytes(texts []string) [][]byte {
	out := make([][]byte, 0, len(texts))
	for _, t := range texts {
		out = append(out, []byte(t))
	}
	return out
}

func toStrings(texts [][]byte) []string {
	out := make([]string, 0, len(texts))
	for _, t := range texts {
		out = append(out, string(t))
	}
	return out
}

// Size is a terminal's, in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Attach asks a supervisor for the agent's command: its output from what is
// still kept on, and with Stdin its input too.
type Attach struct {
	Output bool `json:"output"`
	Stdin  bool `json:"stdin"`
}

// Stop ends the agent's command for good: SIGTERM, and SIGKILL after Grace.
type Stop struct {
	Grace time.Duration `json:"grace"` // in nanoseconds
}

// Listed is a process of the container. Command is what it says of itself.
type Listed struct {
	PID     int           `json:"pid"`
	Parent  int           `json:"ppid"`
	UID     int           `json:"uid"`
	CPU     time.Duration `json:"cpu"`    // used so far, in nanoseconds
	Memory  int64         `json:"memory"` // resident, in bytes
	Command string        `json:"command"`
}

// Exit is how a command ended. Reason is set when it could not be started.
type Exit struct {
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Status is the exit code a shell would report: 128 plus the signal's number
// for a command that a signal ended.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}

const headerSize = 9

// ReadFrame reads one frame and refuses one longer than MaxPayload.
func ReadFrame(r io.Reader) (Frame, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n > MaxPayload {
		return Frame{}, fmt.Errorf("frame of %d bytes: %w", n, ErrProtocol)
	}
	f := Frame{Kind: Kind(head[4]), ID: binary.BigEndian.Uint32(head[5:]), Payload: make([]byte, n)}
	if _, err := io.ReadFull(r, f.Payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // an end between frames is another thing
		}
		return Frame{}, fmt.Errorf("frame cut off: %w", err)
	}
	return f, nil
}

// Writer writes frames from any number of goroutines, each in one piece.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter writes frames to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends one frame.
func (w *Writer) Write(f Frame) error {
	if len(f.Payload) > MaxPayload {
		return fmt.Errorf("frame of %d bytes, at most %d fit: %w", len(f.Payload), MaxPayload, ErrProtocol)
	}
	buf := make([]byte, headerSize, headerSize+len(f.Payload))
	binary.BigEndian.PutUint32(buf, uint32(len(f.Payload)))
	buf[4] = byte(f.Kind)
	binary.BigEndian.PutUint32(buf[5:], f.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(append(buf, f.Payload...))
	return err
}

// WriteJSON sends v as the payload of a frame.
func (w *Writer) WriteJSON(kind Kind, id uint32, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.Write(Frame{Kind: kind, ID: id, Payload: payload})
}

// Decode reads a frame's JSON payload into v.
func (f Frame) Decode(v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("frame of kind %d: %w: %w", f.Kind, err, ErrProtocol)
	}
	return nil
}

// Handshake sends our version, requires the other side's to be the same and
// returns what it said.
func Handshake(r io.Reader, w *Writer) (Hello, error) {
	if err := w.WriteJSON(KindHello, 0, Hello{Version: Version, Minor: Minor, Build: version.Build}); err != nil {
		return Hello{}, fmt.Errorf("send version: %w", err)
	}
	f, err := ReadFrame(r)
	if err != nil {
		return Hello{}, fmt.Errorf("read version: %w", err)
	}
	var hello Hello
	if f.Kind != KindHello {
		return hello, fmt.Errorf("first frame is of kind %d: %w", f.Kind, ErrProtocol)
	}
	if err := f.Decode(&hello); err != nil {
		return hello, err
	}
	if hello.Version != Version {
		return hello, fmt.Errorf("the other side is of build %q and speaks version %d, this one of %q speaks %d: use a carboy of the other side's build: %w",
			hello.Build, hello.Version, version.Build, Version, ErrProtocol)
	}
	return hello, nil
}

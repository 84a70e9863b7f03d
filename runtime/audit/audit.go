// Package audit is the record of what was done with an operator's rights for a
// bottle: one line of JSON for each event, only ever added to, each with the hash
// of the one before. It decides nothing.
//
// The hashes have no key. They show that a record is whole up to a head that is
// known from elsewhere; who can write the record and knows them can write all of
// it anew.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// File is the record's name in a bottle's log directory.
const File = "audit.log"

// Verdicts of an event.
const (
	Allow = "allow"
	Deny  = "deny"
	Fail  = "fail"
	Begin = "begin" // what was asked for is done now
	Done  = "done"
)

// Event is one thing that was asked for. Text in it that a bottle chose has been
// made safe to show.
type Event struct {
	Time    time.Time `json:"time"` // set by Append, as Number and Before
	Number  int       `json:"n"`    // from 1
	Before  string    `json:"prev"` // SHA-256 of the line before, without its newline; of the first, Seed
	Who     *Who      `json:"who,omitempty"`
	Event   string    `json:"event"`
	Verdict string    `json:"verdict,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Key     string    `json:"key,omitempty"` // fingerprint
	Host    string    `json:"host,omitempty"`
	Hosts   []string  `json:"hosts,omitempty"`
	User    string    `json:"user,omitempty"`
	Omitted int       `json:"omitted,omitempty"` // refusals before it that have no line
}

// Who asked, where it was not the bottle.
type Who struct {
	UID  int    `json:"uid"`
	Name string `json:"name,omitempty"`
}

// Head is how far a record goes.
type Head struct {
	Entries int    `json:"entries"`
	Hash    string `json:"hash"` // of the last line
}

// Seed is the hash with which a bottle's record begins.
func Seed(instance string) string { return sum([]byte("carboy audit log of " + instance)) }

func sum(line []byte) string {
	hash := sha256.Sum256(line)
	return hex.EncodeToString(hash[:])
}

// Log is a record. Its methods may be called from any goroutine.
type Log struct {
	mu   sync.Mutex
	file *os.File
	head Head
	err  error // nothing is added after it
}

// Create begins the record of an instance, which has none yet. The caller closes
// it.
func Create(path, instance string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &Log{file: f, head: Head{Hash: Seed(instance)}}, nil
}

// Append adds an event. What it is about must not happen when that fails.
func (l *Log) Append(e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	e.Time, e.Number, e.Before = time.Now().UTC(), l.head.Entries+1, l.head.Hash
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		l.err = fmt.Errorf("audit log: %w", err) // a part of the line may be there
		return l.err
	}
	l.head = Head{Entries: e.Number, Hash: sum(line)}
	return nil
}

// Head is that of what was added so far.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Close may be called more than once.
func (l *Log) Close() error {
	if err := l.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Package audit is the record of what was done with an operator's rights for a
// bottle: one line of JSON for each event, only ever added to. It decides
// nothing.
package audit

import (
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
)

// Event is one thing that was asked for. Text in it that a bottle chose has been
// made safe to show.
type Event struct {
	Time    time.Time `json:"time"` // set by Append
	Event   string    `json:"event"`
	Verdict string    `json:"verdict"`
	Reason  string    `json:"reason,omitempty"`
	Key     string    `json:"key,omitempty"` // fingerprint
	Host    string    `json:"host,omitempty"`
	User    string    `json:"user,omitempty"`
	Omitted int       `json:"omitted,omitempty"` // refusals before it that have no line
}

// Log is a record. Its methods may be called from any goroutine.
type Log struct {
	mu   sync.Mutex
	file *os.File
}

// Open opens a record for adding to it. The caller closes it.
func Open(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &Log{file: f}, nil
}

// Append adds an event. What it is about must not happen when that fails.
func (l *Log) Append(e Event) error {
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

// Close may be called more than once.
func (l *Log) Close() error {
	if err := l.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

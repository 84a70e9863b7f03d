package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"carboy/runtime/audit"
	"carboy/runtime/initproto"
)

// historyFile is beside a bottle's logs, and outlives the bottle as they do.
const historyFile = "record.json"

// History is what is known of a bottle after its end.
type History struct {
	Name     string    `json:"name"`
	Instance string    `json:"instance"`
	Space    string    `json:"containerdNamespace"`
	Agent    string    `json:"agent,omitempty"`
	Image    string    `json:"image"`
	Digest   string    `json:"digest"`
	Runtime  string    `json:"runtime"`
	Proxy    string    `json:"proxy"`
	User     int       `json:"user"` // uid of who asked
	TTY      bool      `json:"tty"`
	Started  time.Time `json:"started"`

	// Zero and nil while the bottle lives, or when its supervisor was killed.
	Ended time.Time       `json:"ended,omitzero"`
	Exit  *initproto.Exit `json:"exit,omitempty"`
	Error string          `json:"error,omitempty"`
	Audit *audit.Head     `json:"audit,omitempty"`
	// AuditFound says that the head is what was there when the bottle was found dead.
	AuditFound bool `json:"auditFound,omitempty"`

	LogDir string `json:"-"`
}

// begin writes the record of a bottle that is coming up.
func (b *Bottle) begin() error {
	r := b.Record
	b.history = History{
		Name: r.Name, Instance: r.Instance, Space: b.host.Namespace, Agent: r.Agent, Image: r.Image, Digest: r.Digest, Runtime: r.Runtime,
		Proxy: r.Proxy, User: r.User, TTY: b.plan.TTY, Started: time.Now().UTC(),
	}
	if err := b.writeHistory(); err != nil {
		return err
	}
	return b.beginAudit()
}

// Ended records how the agent's command ended.
func (b *Bottle) Ended(exit initproto.Exit, err error) error {
	b.history.Ended = time.Now().UTC()
	if err != nil {
		b.history.Error = err.Error()
	} else {
		b.history.Exit = &exit
	}
	return b.writeHistory()
}

func (b *Bottle) writeHistory() error {
	if err := os.MkdirAll(b.LogDir(), 0o700); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	return b.history.write(b.LogDir())
}

func (h History) write(dir string) error {
	text, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	next := filepath.Join(dir, historyFile+".new")
	if err := os.WriteFile(next, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return os.Rename(next, filepath.Join(dir, historyFile))
}

// endHistory records when a bottle was found dead, from when on what it left is
// kept.
func (h *Host) endHistory(r Record) error {
	about, err := readHistory(h.logDir(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it had not begun
	}
	if err != nil {
		log.L.WithError(err).Warn("the end is not recorded")
		return nil
	}
	if !about.Ended.IsZero() {
		return nil
	}
	about.Ended = time.Now().UTC()
	if head, err := about.ReadAudit(func(audit.Event) {}); err == nil {
		about.Audit, about.AuditFound = &head, true
	}
	return about.write(about.LogDir)
}

// Histories are those of the bottles of the last days, ended or not.
func (h *Host) Histories() ([]History, error) {
	entries, err := os.ReadDir(h.LogDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	var all []History
	for _, e := range entries {
		one, err := readHistory(filepath.Join(h.LogDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil { // a loss of power leaves empty files
			log.L.WithError(err).Warn("an ended bottle is passed over")
			continue
		}
		if one.Space == h.Namespace && h.shows(one.User) {
			all = append(all, one)
		}
	}
	return all, nil
}

func readHistory(dir string) (History, error) {
	text, err := os.ReadFile(filepath.Join(dir, historyFile))
	if err != nil {
		return History{}, err
	}
	h := History{LogDir: dir}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("record in %s: %w", dir, err)
	}
	return h, nil
}

// History is that of the bottle with a name, the last one of several, or of
// that instance. It fails with errdefs.ErrNotFound.
func (h *Host) History(name string) (History, error) {
	all, err := h.Histories()
	if err != nil {
		return History{}, err
	}
	var found History
	for _, one := range all {
		if one.Instance == name {
			return one, nil
		}
		if one.Name == name && one.Started.After(found.Started) {
			found = one
		}
	}
	if found.Name == "" {
		return found, fmt.Errorf("no bottle was named %s lately: `carboy ls -a` shows which were: %w", name, errdefs.ErrNotFound)
	}
	return found, nil
}

// ExitOf is how the command of an ended bottle ended: with status 125 where
// nobody knows. It waits for the bottle's end.
func (h *Host) ExitOf(ctx context.Context, name string) (initproto.Exit, error) {
	for {
		about, err := h.History(name)
		if err != nil {
			return initproto.Exit{}, err
		}
		if about.Exit != nil {
			return *about.Exit, nil
		}
		if !h.Lives(about.Instance) {
			return initproto.Exit{Code: 125}, nil
		}
		if err := pause(ctx); err != nil {
			return initproto.Exit{}, err
		}
	}
}

// Lives says whether somebody supervises a bottle.
func (h *Host) Lives(instance string) bool {
	return held(filepath.Join(locksDir(h.StateDir), instance))
}

// AwaitRemoval waits until a bottle is gone, or left by its supervisor with
// something that could not be removed.
func (h *Host) AwaitRemoval(ctx context.Context, r Record) error {
	for {
		lives := h.Lives(r.Instance) // before the look: the lease goes before the lock
		now, err := h.Find(ctx, r.Name)
		switch {
		case errdefs.IsNotFound(err) || err == nil && now.Instance != r.Instance:
			return nil
		case err != nil:
			return err
		case !lives:
			return fmt.Errorf("bottle %s has ended and is not removed completely: run `carboy gc`: %w", r.Name, errdefs.ErrUnavailable)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"carboy/runtime/audit"
)

// Events of a bottle's record that are its supervisor's.
const (
	auditStart = "start"
	auditEnd   = "end"
)

// beginAudit opens the record, whose first entry says who asked for what.
func (b *Bottle) beginAudit() (err error) {
	if b.audit, err = audit.Create(filepath.Join(b.LogDir(), audit.File), b.Instance); err != nil {
		return err
	}
	return b.audit.Append(audit.Event{Event: auditStart, Who: &audit.Who{UID: b.User}, Hosts: b.plan.Allow,
		Reason: fmt.Sprintf("image %s, digest %s, %s", b.Image, b.Digest, b.Proxy)})
}

// endAudit closes the record, and keeps beside it how far it went: what is cut off
// at its end leaves no other trace.
func (b *Bottle) endAudit() error {
	if b.audit == nil {
		return nil
	}
	err := errors.Join(b.audit.Append(audit.Event{Event: auditEnd}), b.audit.Close())
	head := b.audit.Head()
	b.history.Audit = &head
	return errors.Join(err, b.writeHistory())
}

// ReadAudit gives the entries of a bottle's record to emit, and returns how far it
// is whole. See audit.Read for its errors; errdefs.ErrNotFound is no record.
func (h History) ReadAudit(emit func(audit.Event)) (audit.Head, error) {
	f, err := os.Open(filepath.Join(h.LogDir, audit.File))
	if errors.Is(err, fs.ErrNotExist) {
		return audit.Head{}, fmt.Errorf("bottle %s has no audit log in %s: %w", h.Name, h.LogDir, errdefs.ErrNotFound)
	}
	if err != nil {
		return audit.Head{}, err
	}
	defer f.Close()
	return audit.Read(f, h.Instance, emit)
}

// VerifyAudit reads a bottle's record and compares it with how far it went when
// the bottle ended, where that is known.
func (h History) VerifyAudit() (audit.Head, error) {
	head, err := h.ReadAudit(func(audit.Event) {})
	if err != nil || h.Audit == nil {
		return head, err
	}
	return head, head.Compare(*h.Audit)
}

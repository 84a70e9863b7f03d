package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"carboy/runtime/audit"
	"carboy/runtime/egress"
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
// the bottle ended, or goes by what its supervisor says. Not complete is where
// nobody knows that.
func (h *Host) VerifyAudit(ctx context.Context, about History) (head audit.Head, complete bool, err error) {
	for h.Lives(about.Instance) {
		before, err := h.Steer(ctx, about.Name, egress.Request{Do: egress.Show})
		if err != nil {
			break // it comes up or goes down, or is of an older carboy
		}
		head, wrong := about.ReadAudit(func(audit.Event) {})
		after, err := h.Steer(ctx, about.Name, egress.Request{Do: egress.Show})
		if err == nil && before.Audit != after.Audit {
			continue // it was added to meanwhile
		}
		if wrong == nil {
			wrong = head.Compare(before.Audit)
		}
		return head, true, wrong
	}
	head, err = about.ReadAudit(func(audit.Event) {})
	if err != nil || about.Audit == nil {
		return head, false, err
	}
	return head, !about.AuditFound, head.Compare(*about.Audit)
}

// Package uplink is the way out that all bottles of a host share: one range of
// addresses, one nftables table that masquerades and guards it, accepting rules
// in the firewalls of others, and what the host was like before. It counts who
// uses it; it makes no link and knows no namespace but the host's.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"carboy/netns/flock"
)

// Shared is what all bottles of a host share, kept in one directory on a tmpfs.
// Its lock is held for whole changes: who enters is counted before the table is
// looked for, so the last to leave never takes it from one who has just come.
// Files are replaced, never rewritten: a kill leaves the old or the new one.
type Shared struct{ Dir string }

// IPAM is the place for the store of what gives addresses out; it goes with the
// last bottle.
func (s Shared) IPAM() string { return filepath.Join(s.Dir, "ipam") }

func (s Shared) usersDir() string            { return filepath.Join(s.Dir, "users") }
func (s Shared) user(instance string) string { return filepath.Join(s.usersDir(), instance) }
func (s Shared) lockFile() string            { return filepath.Join(s.Dir, "lock") }
func (s Shared) rangeFile() string           { return filepath.Join(s.Dir, "range") }
func (s Shared) sysctlFile() string          { return filepath.Join(s.Dir, "ip_forward") }
func (s Shared) acceptFile() string          { return filepath.Join(s.Dir, "accepted") }

// locked runs f while no other bottle changes what is shared.
func (s Shared) locked(ctx context.Context, f func() error) (err error) {
	lock, err := s.lock(ctx)
	if err != nil {
		return fmt.Errorf("lock of the egress network: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := os.MkdirAll(s.usersDir(), 0o700); err != nil {
		return err
	}
	return f()
}

// lock starts over when the last bottle has removed the file meanwhile.
func (s Shared) lock(ctx context.Context) (*os.File, error) {
	for {
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(s.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := flock.Lock(ctx, file); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if same(file, s.lockFile()) {
			return file, nil
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
}

func same(file *os.File, path string) bool {
	held, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(held, named)
}

// remove takes the directory away, the lock last: whoever waits for it then
// finds that it is not the file of that name and makes a new one.
func (s Shared) remove() error {
	for _, path := range []string{s.usersDir(), s.IPAM(), filepath.Join(s.Dir, "new"), s.acceptFile(), s.sysctlFile(), s.rangeFile(), s.lockFile()} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := os.Remove(s.Dir); !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		return err // else the next bottle is here already
	}
	return nil
}

// put replaces a file.
func (s Shared) put(path, text string) error {
	next := filepath.Join(s.Dir, "new") // under the lock there is only one
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// users are the bottles that are counted in.
func (s Shared) users() ([]string, error) {
	entries, err := os.ReadDir(s.usersDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// resolvers are those of all bottles, each written down when it came.
func (s Shared) resolvers() ([]netip.Addr, error) {
	users, err := s.users()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, u := range users {
		b, err := os.ReadFile(s.user(u))
		if err != nil {
			return nil, err
		}
		for text := range strings.FieldsSeq(string(b)) {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("resolvers of bottle %s: %w", u, err)
			}
			all = append(all, addr)
		}
	}
	return all, nil
}

// Range is that of the bottles that are up.
func (s Shared) Range() (netip.Prefix, error) { return s.readRange() }

func (s Shared) readRange() (netip.Prefix, error) {
	b, err := os.ReadFile(s.rangeFile())
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(string(b))
}

// inUse is the range of the bottles that are counted in, not valid without
// any.
func (s Shared) inUse() (netip.Prefix, error) {
	users, err := s.users()
	if err != nil || len(users) == 0 {
		return netip.Prefix{}, err
	}
	used, err := s.readRange()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the last one is leaving
	}
	return used, err
}

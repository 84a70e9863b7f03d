package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/fsnotify/fsnotify"

	"carboy/runtime/proxy/policy"
)

// readPolicy also returns the hash by which the supervisor knows it.
func readPolicy(dir string) (p policy.Policy, hash string, err error) {
	name := filepath.Join(dir, policy.File)
	b, err := os.ReadFile(name)
	if err != nil {
		return p, "", fmt.Errorf("read policy: %w", err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, "", fmt.Errorf("policy %s: %w", name, err)
	}
	return p, policy.Hash(b), nil
}

// watcher tells of changes to a directory, and of SIGHUP for where the kernel
// does not tell: gVisor sees no change that the host makes.
type watcher struct {
	dir    string
	files  *fsnotify.Watcher
	hangup chan os.Signal
}

// watch follows the directory and not the file, which is replaced by renaming.
// The caller closes the watcher.
func watch(dir string) (*watcher, error) {
	files, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch policy: %w", err)
	}
	if err := files.Add(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("watch policy directory %s: %w", dir, err), files.Close())
	}
	w := &watcher{dir: dir, files: files, hangup: make(chan os.Signal, 1)}
	signal.Notify(w.hangup, syscall.SIGHUP)
	return w, nil
}

func (w *watcher) close() {
	signal.Stop(w.hangup)
	_ = w.files.Close() // nothing is lost with it
}

// follower is who takes policies.
type follower interface {
	take(p policy.Policy, hash string)
	keep(why error) // the one that is in force
}

// follow hands on every new policy, and tells of a bad one.
func (w *watcher) follow(ctx context.Context, f follower) error {
	for {
		if err := w.next(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		p, hash, err := readPolicy(w.dir)
		if err != nil {
			f.keep(err)
			continue
		}
		f.take(p, hash)
	}
}

// next waits for a reason to read the policy again.
func (w *watcher) next(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-w.hangup:
		return nil
	case _, ok := <-w.files.Events:
		if !ok {
			return errors.New("watch policy: the watch has ended")
		}
		return nil
	case err := <-w.files.Errors:
		if errors.Is(err, fsnotify.ErrEventOverflow) {
			return nil // what was missed may have been a policy
		}
		return fmt.Errorf("watch policy: %w", err)
	}
}

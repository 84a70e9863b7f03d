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

const policyFile = "policy.json"

func readPolicy(dir string) (policy.Policy, error) {
	var p policy.Policy
	name := filepath.Join(dir, policyFile)
	b, err := os.ReadFile(name)
	if err != nil {
		return p, fmt.Errorf("read policy: %w", err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("policy %s: %w", name, err)
	}
	return p, nil
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

// follow hands on every new policy. A bad one is told and the old one stays.
func (w *watcher) follow(ctx context.Context, reload func(policy.Policy)) error {
	for {
		if err := w.next(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		p, err := readPolicy(w.dir)
		if err != nil {
			fmt.Fprintf(os.Stderr, "carboy-egress: policy not reloaded, the old one stays: %v\n", err)
			continue
		}
		reload(p)
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

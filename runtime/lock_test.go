package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPostponed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.postpone(); err != nil {
		t.Fatal(err)
	}
	if !postponed(path) {
		t.Error("it can be tried again at once")
	}
	for what, after := range map[string]time.Duration{"its time is over": -time.Second, "the clock was set back by a day": 24 * time.Hour} {
		then := time.Now().Add(after)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
		if postponed(path) {
			t.Errorf("%s, and it still waits", what)
		}
	}
	if postponed(path + "-none") {
		t.Error("what is not there waits")
	}
}

func TestLockIsOnesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path); !errors.Is(err, errHeld) || !held(path) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := waitLock(t.Context(), path, 20*time.Millisecond); !errors.Is(err, errHeld) {
		t.Errorf("with patience: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan error, 1)
	go func() {
		two, err := waitLock(ctx, path, 10*time.Second)
		if err == nil {
			err = two.remove()
		}
		got <- err
	}()
	if err := one.remove(); err != nil { // its file is not the waiter's
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) || held(path) {
		t.Errorf("it is still there: %v", err)
	}
}

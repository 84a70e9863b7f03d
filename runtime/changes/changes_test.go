package changes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// tree makes a directory with files, by their paths, and opens it.
func tree(t *testing.T, files map[string]string) *os.File {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(dir, name), text)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sparse makes a file of a terabyte that holds little.
func sparse(t *testing.T, text string, at int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDifferSkipsHoles(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	const middle = 1<<39 + 12345
	for _, tc := range []struct {
		text string
		at   int64
		want bool
	}{
		{"text", middle, false}, {"TEXT", middle, true}, {"text", middle + 1, true}, {"text", 0, true}, {"\x00\x00", 0, true},
	} {
		different, err := differ(ctx, sparse(t, "text", middle), sparse(t, tc.text, tc.at))
		if err != nil || different != tc.want {
			t.Errorf("%q at %d: %v, %v", tc.text, tc.at, different, err)
		}
	}
	// What is zero differs from no hole.
	if different, err := differ(ctx, sparse(t, "\x00", 5), sparse(t, "\x00", middle)); err != nil || different {
		t.Errorf("zeros and holes: %v, %v", different, err)
	}
}

func TestDifferHeedsItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	same := map[string]string{"f": "text"}
	s := Sides{Before: tree(t, same), Upper: tree(t, same)}
	if changed, err := s.Any(t.Context()); changed || err != nil {
		t.Errorf("the same: %v, %v", changed, err)
	}
	if _, err := s.Any(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a walk that is over goes on: %v", err)
	}
	a, b := sparse(t, "text", 0), sparse(t, "text", 0)
	if _, err := differ(ctx, a, b); !errors.Is(err, context.Canceled) {
		t.Errorf("a comparison that is over goes on: %v", err)
	}
}

// TestWalkMisses: what vanishes while it is read is an agent's work, or else
// the tree is being removed.
func TestWalkMisses(t *testing.T) {
	for _, live := range []bool{true, false} {
		for _, gone := range []string{"b", "c", "same"} {
			s := Sides{
				Before: tree(t, map[string]string{"same": "same"}),
				Upper:  tree(t, map[string]string{"a": "a", "b": "b", "c/d": "d", "same": "same"}),
				Live:   live,
			}
			err := s.Walk(t.Context(), func(Change) error { return os.RemoveAll(filepath.Join(s.Upper.Name(), gone)) })
			if live && err != nil || !live && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("live %v, without %s: %v", live, gone, err)
			}
		}
	}
}

// TestCloseReleases: the caller's hold ends with what it opened.
func TestCloseReleases(t *testing.T) {
	failed := errors.New("failed")
	s := Sides{Before: tree(t, nil), Upper: tree(t, nil), Release: func() error { return failed }}
	if err := s.Close(); !errors.Is(err, failed) {
		t.Error(err)
	}
}

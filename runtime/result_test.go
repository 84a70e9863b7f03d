package runtime

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"carboy/runtime/changes"
)

// TestCalled: nobody takes the place of another's result by the name of a bottle.
func TestCalled(t *testing.T) {
	all := []Result{{Name: "aaaaaaaaaa", Instance: "bbbbbbbbbb"}, {Name: "one", Instance: "aaaaaaaaaa"}, {Name: "one", Instance: "cccccccccc"}}
	for name, want := range map[string]string{"aaaaaaaaaa": "aaaaaaaaaa", "one": "aaaaaaaaaa", "cccccccccc": "cccccccccc", "bbbbbbbbbb": "bbbbbbbbbb", "two": ""} {
		if r, found := called(all, name); r.Instance != want || found != (want != "") {
			t.Errorf("%s: %+v, %v", name, r, found)
		}
	}
}

// TestRetention: what takes too much goes where its user has a later one.
func TestRetention(t *testing.T) {
	const dev, eve, day = 1, 2, 24 * time.Hour
	keeps := retention{last: map[named]bool{}}
	for _, tt := range []struct {
		user  int
		size  int64
		ended time.Duration
		drops bool
	}{
		{dev, mostResults + 1, time.Hour, false},
		{eve, 1, 2 * day, false}, // her last
		{eve, 1, day / 2, false},
		{eve, 1, 3 * day, true},
		{dev, 1, 3 * day, true},
		{3, 1, 8 * day, true},
	} {
		if drops := keeps.drops(Result{Name: "one", User: tt.user}, tt.size, tt.ended); drops != tt.drops {
			t.Errorf("%+v: %v", tt, drops)
		}
	}
}

// TestPerhapsChanged: what takes too long to compare counts as changed.
func TestPerhapsChanged(t *testing.T) {
	var s changes.Sides
	for _, side := range []**os.File{&s.Before, &s.Upper} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "touched"), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		*side = f
	}
	defer s.Close()
	for limit, want := range map[time.Duration]bool{time.Minute: false, time.Nanosecond: true} {
		if changed, err := perhapsChanged(t.Context(), s, limit); changed != want || err != nil {
			t.Errorf("in %s: %v, %v", limit, changed, err)
		}
	}
}

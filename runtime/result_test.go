package runtime

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"carboy/runtime/changes"
)

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

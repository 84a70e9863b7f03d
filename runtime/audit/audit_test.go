package audit

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestLogIsAddedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	for range 2 {
		l, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if err := l.Append(Event{Event: "test", Verdict: Deny, Reason: "a\nb"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(Event{}); err == nil {
			t.Error("a closed log takes events")
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(lines) != 100 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil || e.Reason != "a\nb" || time.Since(e.Time) > time.Minute {
			t.Errorf("%s: %v", line, err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

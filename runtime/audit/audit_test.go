package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const instance = "abcdefghij"

func TestLogIsAddedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	l, err := Create(path, instance)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if err := l.Append(Event{Event: "test", Verdict: Deny, Reason: "a\nb", Who: &Who{UID: 1000, Name: "alice"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(Event{}); err == nil {
		t.Error("a closed log takes events")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries := 0
	head, err := Read(bytes.NewReader(b), instance, func(e Event) {
		entries++
		if e.Number != entries || e.Reason != "a\nb" || *e.Who != (Who{1000, "alice"}) || time.Since(e.Time) > time.Minute {
			t.Errorf("%+v", e)
		}
	})
	if err != nil || entries != 100 || head != l.Head() {
		t.Errorf("%d entries, %+v, want %+v: %v", entries, head, l.Head(), err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if _, err := Create(path, instance); !errors.Is(err, os.ErrExist) {
		t.Errorf("a record is begun twice: %v", err)
	}
}

// A line of which a part was written is not added to.
func TestAppendAfterAFailure(t *testing.T) {
	l, err := Create(filepath.Join(t.TempDir(), File), instance)
	if err != nil {
		t.Fatal(err)
	}
	whole := l.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	l.file = full
	if err := l.Append(Event{}); err == nil {
		t.Fatal("control: a full disk takes an event")
	}
	l.file = whole
	if err := l.Append(Event{}); err == nil || l.Head().Entries != 0 {
		t.Errorf("%v, %+v", err, l.Head())
	}
}

// record is one of five entries, its lines with their newlines.
func record(t *testing.T, instance string) (lines []string, head Head) {
	t.Helper()
	path := filepath.Join(t.TempDir(), File)
	l, err := Create(path, instance)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 5 {
		if err := l.Append(Event{Event: "test", Reason: fmt.Sprintf("reason %d", i+1)}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(text))), l.Head()
}

func TestVerify(t *testing.T) {
	lines, head := record(t, instance)
	other, _ := record(t, "jihgfedcba")
	change := func(line string) string { return strings.Replace(line, "reason", "excuse", 1) }
	without := func(i, n int) []string { return slices.Delete(slices.Clone(lines), i, i+n) }
	with := func(i int, line ...string) []string { return slices.Insert(slices.Clone(lines), i, line...) }
	replaced := func(i int, line string) []string { return slices.Replace(slices.Clone(lines), i, i+1, line) }
	renumbered := strings.Replace(lines[3], `"n":4`, `"n":3`, 1)
	for name, tt := range map[string]struct {
		lines []string
		line  int // zero: nothing is wrong
		says  string
	}{
		"whole":                    {lines, 0, ""},
		"first changed":            {replaced(0, change(lines[0])), 1, "changed"},
		"one changed":              {replaced(2, change(lines[2])), 3, "changed"},
		"last changed":             {replaced(4, change(lines[4])), 5, "changed"},
		"no JSON":                  {replaced(2, "x\n"), 3, "no entry"},
		"first removed":            {without(0, 1), 1, "1 were removed"},
		"two removed":              {without(1, 2), 2, "2 were removed"},
		"removed and renumbered":   {append(without(2, 2), renumbered), 3, "entry 5"},
		"renumbered in its place":  {replaced(2, renumbered), 2, "changed"},
		"one twice":                {with(3, lines[2]), 4, "another entry 3"},
		"another bottle's":         {other, 1, "another's"},
		"one of another":           {replaced(2, other[2]), 2, "changed"},
		"last cut off":             {without(4, 1), 5, "cut off"},
		"all cut off":              {nil, 1, "had 5 entries"},
		"last cut in the middle":   {replaced(4, lines[4][:20]), 5, "cut off"},
		"only its newline cut off": {replaced(4, strings.TrimSuffix(lines[4], "\n")), 5, "cut off"},
		"added after the end":      {with(5, fmt.Sprintf(`{"n":6,"prev":%q}`+"\n", head.Hash)), 6, "added"},
	} {
		found, err := Read(strings.NewReader(strings.Join(tt.lines, "")), instance, func(Event) {})
		if err == nil {
			err = found.Compare(head)
		}
		var wrong Wrong
		if tt.line == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.As(err, &wrong) || wrong.Line != tt.line || !strings.Contains(wrong.What, tt.says) {
			t.Errorf("%s: %v, want line %d and %q", name, err, tt.line, tt.says)
		}
	}
}

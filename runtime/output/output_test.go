package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func newOutput(t *testing.T) (*Output, string) {
	t.Helper()
	dir := t.TempDir()
	return New(NewLog(dir, func(err error) { t.Error(err) })), dir
}

func say(t *testing.T, o *Output, s Stream, text string) {
	t.Helper()
	if n, err := io.WriteString(o.Writer(s), text); n != len(text) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func lines(t *testing.T, dir string, q Query) (all []string) {
	t.Helper()
	err := Read(t.Context(), dir, q, func(l Line) error {
		end := ""
		if l.Partial {
			end = "..."
		}
		all = append(all, fmt.Sprintf("%s %s%s", l.Stream, l.Text, end))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

func TestLog(t *testing.T) {
	o, dir := newOutput(t)
	say(t, o, Stdout, "one\ntw")
	say(t, o, Stderr, "oops\n\n")
	o.Note("a remark")
	middle := time.Now()
	say(t, o, Stdout, "o\n")
	say(t, o, Stdout, "no newline")
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	all := []string{"stdout one", "stdout tw...", "stderr oops", "stderr ", "carboy a remark", "stdout o", "stdout no newline..."}
	for _, tt := range []struct {
		q    Query
		want []string
	}{
		{Query{Tail: -1}, all},
		{Query{Tail: 1}, all[5:]}, // what is not whole is more of the end
		{Query{Tail: 3}, all[3:]},
		{Query{Tail: 99}, all},
		{Query{Tail: -1, Since: middle}, all[5:]},
		{Query{Tail: -1, Since: time.Now().Add(time.Hour)}, nil},
	} {
		if got := lines(t, dir, tt.q); strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%+v: got %q, want %q", tt.q, got, tt.want)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, fileName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if got := lines(t, t.TempDir(), Query{Tail: -1}); got != nil {
		t.Errorf("of nothing: %q", got)
	}
}

// TestFollowed: who follows misses nothing, also where the file is replaced.
func TestFollowed(t *testing.T) {
	o, dir := newOutput(t)
	const count, length = 1100, 64 << 10 // more than a file holds
	var ended atomic.Bool
	got := make(chan int, 1)
	go func() {
		n := 0
		err := Read(t.Context(), dir, Query{Tail: -1, Follow: true, Ended: ended.Load}, func(l Line) error {
			if want := fmt.Sprintf("%d ", n); !strings.HasPrefix(string(l.Text), want) {
				return fmt.Errorf("line %d begins with %.9q", n, l.Text)
			}
			n++
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	filler := strings.Repeat("x", length)
	for i := range count {
		say(t, o, Stdout, fmt.Sprintf("%d %s\n", i, filler))
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	ended.Store(true)
	if n := <-got; n != count {
		t.Errorf("%d of %d lines", n, count)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.log")); len(files) != 2 {
		t.Errorf("files: %q", files)
	}
}

// TestBrokenLog: what cannot be written is told once, and stops nobody.
func TestBrokenLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	told := 0
	o := New(NewLog(filepath.Join(file, "below"), func(error) { told++ }))
	say(t, o, Stdout, "one\n")
	say(t, o, Stdout, "two\n")
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	o.End()
	var out bytes.Buffer
	if err := o.View(t.Context(), &out, io.Discard); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// blocked takes one write and then waits.
type blocked struct {
	bytes.Buffer
	goOn chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	<-b.goOn
	return b.Buffer.Write(p)
}

// TestSlowViewer: it delays nobody, gets the end, and is told of the gap.
func TestSlowViewer(t *testing.T) {
	o, _ := newOutput(t)
	slow := &blocked{goOn: make(chan struct{})}
	var remarks bytes.Buffer
	done := make(chan error, 1)
	say(t, o, Stdout, "first\n")
	go func() { done <- o.View(t.Context(), slow, &remarks) }()
	for i := range 4 * kept / 1024 {
		say(t, o, Stdout, fmt.Sprintf("%1023d\n", i))
	}
	say(t, o, Stdout, "last\n")
	o.End()
	close(slow.goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.HasSuffix(slow.String(), "\nlast\n") || slow.Len() > kept+2048 {
		t.Errorf("%d bytes, ending in %.20q", slow.Len(), slow.String()[slow.Len()-20:])
	}
	if strings.HasPrefix(slow.String(), "first\n") && !strings.Contains(remarks.String(), "too slow") {
		t.Errorf("not told: %q", remarks.String())
	}
}

func TestViewerLeaves(t *testing.T) {
	o, _ := newOutput(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	done := make(chan error, 1)
	go func() { done <- o.View(ctx, io.Discard, io.Discard) }()
	cancel(gone)
	if err := <-done; !errors.Is(err, gone) {
		t.Error(err)
	}
	say(t, o, Stdout, "on\n")
}

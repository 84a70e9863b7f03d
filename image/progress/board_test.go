package progress

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// at is a clock that a test sets.
type at struct{ t time.Time }

func (a *at) now() time.Time { return a.t }

func layer(text string, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromString(text), Size: size}
}

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	clock := &at{time.Unix(100, 0)}
	b := New(&out, nil, func() string { return "never seen" })
	b.now = clock.now
	one, two, three := layer("one", 4<<20), layer("two", 1<<20), layer("three", 1<<10)
	b.Begin(one, 0)
	b.Read(one, 1<<20)
	b.Begin(two, 1<<19)
	b.Begin(one, 2<<20) // tried again, at what is there
	b.Read(one, 2<<20)
	b.Read(two, 1)
	clock.t = clock.t.Add(2 * time.Second)
	b.End(one, nil)
	b.End(two, errors.New("cut off"))
	b.Begin(three, 0)
	b.End(three, nil)
	b.Note("registry test: using what is there")
	b.Close()
	a, c, d := short(one.Digest), short(two.Digest), short(three.Digest)
	want := a + ": fetching 4MiB\n" +
		c + ": going on at 512KiB of 1MiB\n" +
		a + ": done, 4MiB in 2.0s, 1.5MiB/s\n" +
		c + ": failed at 512KiB of 1MiB\n" +
		d + ": there already, 1KiB\n" +
		"registry test: using what is there\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestRedrawn(t *testing.T) {
	var out bytes.Buffer
	b := New(&out, func() int { return 40 }, nil)
	for i := range 30 {
		b.Begin(layer(strings.Repeat("x", i), 1<<20), 0)
	}
	b.Note("a line that stays")
	b.Close()
	_, last, noted := strings.Cut(out.String(), "a line that stays\n")
	lines := strings.Split(strings.TrimSuffix(last, "\n"), "\n")
	if len(lines) != mostLines {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	for _, l := range lines {
		if len(l) >= 40 {
			t.Errorf("would wrap: %q", l)
		}
	}
	if !noted {
		t.Errorf("%q", out.String())
	}
	var none *Board
	none.Begin(layer("", 1), 0)
	none.Read(layer("", 1), 1)
	none.End(layer("", 1), nil)
	none.Note("nobody")
	none.Close()
}

func TestWait(t *testing.T) {
	var out bytes.Buffer
	clock, doing := &at{time.Unix(100, 0)}, ""
	b := &Board{out: &out, width: func() int { return 30 }, doing: func() string { return doing }, begin: clock.t, now: clock.now}
	draws := func(after time.Duration, text, want string) {
		t.Helper()
		out.Reset()
		clock.t, doing = time.Unix(100, 0).Add(after), text
		b.draw()
		if out.String() != want {
			t.Errorf("after %v: %q, want %q", after, out.String(), want)
		}
	}
	const erase = "\x1b[1A\x1b[J"
	draws(quickTime-1, "one", "")
	draws(quickTime, "", "")
	draws(quickTime, "one", "carboy: one ... 1s\n")
	draws(quickTime+1, "one", "")
	draws(2*time.Second, "one", erase+"carboy: one ... 2s\n")
	draws(2*time.Second, "", erase)
	draws(3*time.Second, strings.Repeat("x", 40), "carboy: "+strings.Repeat("x", 21)+"\n")
	out.Reset()
	b.Above(func() { out.WriteString("above\n") })
	b.draw()
	b.Close()
	b.Close()
	b.draw()
	if want := erase + "above\ncarboy: " + strings.Repeat("x", 21) + "\n" + erase; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestNotADigest(t *testing.T) {
	if got := short("\x1b[31mred"); got != "(not a digest)" {
		t.Errorf("%q", got)
	}
}

// Package progress shows pulls while they run, and what else is waited for: lines
// that are redrawn on a terminal, and elsewhere one line for each begin and end of
// a pull. Of a pull it shows sizes and digests, never text that a registry chose.
package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Board is what is known of all pulls of a command. A nil board shows nothing.
// It is safe for concurrent use.
type Board struct {
	out   io.Writer
	width func() int    // of the terminal; nil prints plain lines
	doing func() string // what is waited for; nil or an empty text is not shown
	begin time.Time
	now   func() time.Time

	mu    sync.Mutex
	blobs map[digest.Digest]*blob
	order []digest.Digest
	drawn int    // lines on the terminal that are redrawn
	text  string // they are
	close sync.Once
	stop  chan struct{}
	ended chan struct{}
}

// blob is one on its way. Offset includes what was there before.
type blob struct {
	size, offset, fetched int64
	begin, end            time.Time
	there                 bool // nothing had to be fetched
	failed                bool
}

// New makes a board. Width is the terminal's width in cells, asked before each
// drawing; without it lines are plain. Doing is what is waited for in plain ASCII:
// it is said below the pulls after half a second, on a terminal only, and may be
// nil. The caller ends it with Close.
func New(out io.Writer, width func() int, doing func() string) *Board {
	b := &Board{out: out, width: width, doing: doing, begin: time.Now(), now: time.Now, blobs: map[digest.Digest]*blob{}}
	if width == nil {
		return b
	}
	b.stop, b.ended = make(chan struct{}), make(chan struct{})
	go b.redraw()
	return b
}

const (
	redrawTime = 100 * time.Millisecond
	quickTime  = 500 * time.Millisecond // nobody wonders what it is that takes less
)

func (b *Board) redraw() {
	defer close(b.ended)
	tick := time.NewTicker(redrawTime)
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-tick.C:
			b.mu.Lock()
			b.draw()
			b.mu.Unlock()
		}
	}
}

// Close draws pulls for the last time, and says no more what is waited for. It may
// be called again.
func (b *Board) Close() {
	if b != nil {
		b.close.Do(b.end)
	}
}

func (b *Board) end() {
	if b.stop != nil {
		close(b.stop)
		<-b.ended
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doing = nil
	b.draw()
	b.order, b.drawn, b.text = nil, 0, ""
}

// Begin shows a blob from an offset on.
func (b *Board) Begin(desc ocispec.Descriptor, offset int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.blobs[desc.Digest]; x != nil && x.end.IsZero() {
		x.offset = offset // tried again
		return
	}
	if b.blobs[desc.Digest] == nil {
		b.order = append(b.order, desc.Digest)
	}
	b.blobs[desc.Digest] = &blob{size: desc.Size, offset: offset, begin: b.now()}
}

// Read adds n bytes to a blob that has begun.
func (b *Board) Read(desc ocispec.Descriptor, n int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.blobs[desc.Digest]
	switch {
	case x == nil:
		return
	case x.fetched == 0 && x.offset > 0:
		b.line(desc.Digest, fmt.Sprintf("going on at %s of %s", size(x.offset), size(x.size)))
	case x.fetched == 0:
		b.line(desc.Digest, "fetching "+size(x.size))
	}
	x.offset += int64(n)
	x.fetched += int64(n)
}

// End shows that a blob is there, or has failed.
func (b *Board) End(desc ocispec.Descriptor, err error) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.blobs[desc.Digest]
	if x == nil || !x.end.IsZero() {
		return
	}
	x.end, x.failed = b.now(), err != nil
	x.there = err == nil && x.fetched == 0
	b.line(desc.Digest, x.state(x.end))
}

// Note shows a line of its own, above what is redrawn. Its text has to be safe.
func (b *Board) Note(text string) {
	if b != nil {
		b.Above(func() { _, _ = fmt.Fprintln(b.out, text) }) // who shows progress to nobody still pulls
	}
}

// Above has whole lines written to the terminal that are no part of the board.
func (b *Board) Above(write func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drawn > 0 {
		_, _ = io.WriteString(b.out, b.eraser())
		b.drawn = 0
	}
	write()
}

// line is for those without a terminal.
func (b *Board) line(d digest.Digest, text string) {
	if b.width == nil {
		_, _ = fmt.Fprintf(b.out, "%s: %s\n", short(d), text)
	}
}

func (b *Board) eraser() string { return fmt.Sprintf("\x1b[%dA\x1b[J", b.drawn) }

// draw replaces what it drew before. A line that wrapped would be counted as
// one, so each is cut to the width.
func (b *Board) draw() {
	if b.width == nil {
		return
	}
	width := b.width()
	if width <= 0 {
		width = 80
	}
	lines := append(b.lines(), b.wait()...)
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(l[:min(len(l), width-1)] + "\n")
	}
	if len(lines) == b.drawn && text.String() == b.text {
		return
	}
	before := ""
	if b.drawn > 0 {
		before = b.eraser()
	}
	b.drawn, b.text = len(lines), text.String()
	_, _ = io.WriteString(b.out, before+b.text)
}

// wait is no line or one.
func (b *Board) wait() []string {
	took := b.now().Sub(b.begin)
	if b.doing == nil || took < quickTime {
		return nil
	}
	text := b.doing()
	if text == "" {
		return nil
	}
	return []string{fmt.Sprintf("carboy: %s ... %v", text, took.Round(time.Second))}
}

// mostLines keeps the drawing below a usual terminal's height: what scrolled
// away cannot be redrawn.
const mostLines = 20

func (b *Board) lines() []string {
	now := b.now()
	var done, open []string
	for _, d := range b.order {
		x := b.blobs[d]
		l := fmt.Sprintf("%s  %s", short(d), x.state(now))
		if x.end.IsZero() {
			open = append(open, l)
		} else {
			done = append(done, l)
		}
	}
	if room := max(1, mostLines-1-len(open)); len(done) > room {
		hidden := len(done) - room
		done = append([]string{fmt.Sprintf("(%d more are there)", hidden)}, done[hidden:]...)
	}
	all := slices.Concat(done, open)
	return all[:min(len(all), mostLines)]
}

func (x *blob) state(now time.Time) string {
	switch {
	case x.failed:
		return fmt.Sprintf("failed at %s of %s", size(x.offset), size(x.size))
	case x.there:
		return fmt.Sprintf("there already, %s", size(x.size))
	case !x.end.IsZero():
		return fmt.Sprintf("done, %s in %.1fs, %s/s", size(x.size), x.end.Sub(x.begin).Seconds(), size(x.rate(x.end)))
	}
	return fmt.Sprintf("%9s of %-9s %9s/s  %s", size(x.offset), size(x.size), size(x.rate(now)), x.bar())
}

func (x *blob) rate(now time.Time) int64 {
	seconds := now.Sub(x.begin).Seconds()
	if seconds <= 0 {
		return 0
	}
	return int64(float64(x.fetched) / seconds)
}

func (x *blob) bar() string {
	const cells = 20
	full := 0
	if x.size > 0 {
		full = int(min(x.offset, x.size) * cells / x.size)
	}
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", cells-full) + "]"
}

func size(n int64) string { return units.BytesSize(float64(n)) }

// short takes nothing from a digest that is not one.
func short(d digest.Digest) string {
	const shown = 12
	if d.Validate() != nil {
		return "(not a digest)"
	}
	return d.Encoded()[:shown]
}

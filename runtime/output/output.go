// Package output keeps what an agent says: the end of it in memory, for whoever
// comes to look, and all of it in a log on disk. Viewers never hold the agent
// up; the log does.
package output

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Stream is where a piece of output comes from.
type Stream string

// Streams of a log. Note is what carboy has to say about the bottle.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
	Note   Stream = "carboy"
)

// kept is how many bytes stay in memory.
const kept = 1 << 20

// Output is that of one command.
type Output struct {
	log *Log

	mu     sync.Mutex
	news   *sync.Cond
	pieces []piece
	first  int // number of pieces[0] among all
	size   int
	last   time.Time
	closed bool
}

type piece struct {
	stream Stream
	text   []byte
}

// New keeps output in log, too.
func New(log *Log) *Output {
	o := &Output{log: log, last: time.Now()}
	o.news = sync.NewCond(&o.mu)
	return o
}

// Writer takes a stream. It waits for the log and for nobody else, and never
// fails: Log tells what it could not write.
func (o *Output) Writer(s Stream) io.Writer { return writer{o, s} }

type writer struct {
	o *Output
	s Stream
}

func (w writer) Write(p []byte) (int, error) {
	w.o.log.write(w.s, p)
	w.o.keep(w.s, p)
	return len(p), nil
}

// Note adds a line of carboy's own to the log.
func (o *Output) Note(text string) { o.log.write(Note, []byte(text+"\n")) }

func (o *Output) keep(s Stream, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = time.Now()
	o.pieces = append(o.pieces, piece{s, append([]byte(nil), p...)})
	o.size += len(p)
	for o.size > kept && len(o.pieces) > 1 {
		o.size -= len(o.pieces[0].text)
		o.pieces[0].text = nil
		o.pieces = o.pieces[1:]
		o.first++
	}
	o.news.Broadcast()
}

// Last is when something was said.
func (o *Output) Last() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// End says that nothing more will come.
func (o *Output) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.news.Broadcast()
}

// Close ends the output and its log.
func (o *Output) Close() error {
	o.End()
	return o.log.close()
}

// View writes what is kept and then what comes, until End or the end of ctx.
// A viewer that takes longer than memory lasts misses the oldest, and is told.
func (o *Output) View(ctx context.Context, stdout, stderr io.Writer) error {
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.news.Broadcast()
	})
	defer stop()
	at := 0
	for {
		p, next, ok := o.next(ctx, at)
		if !ok {
			return context.Cause(ctx)
		}
		if missed := next - 1 - at; missed > 0 && at > 0 {
			if _, err := fmt.Fprintf(stderr, "\r\ncarboy: too slow, some output is left out: carboy logs has it\r\n"); err != nil {
				return err
			}
		}
		at = next
		to := stdout
		if p.stream == Stderr {
			to = stderr
		}
		if _, err := to.Write(p.text); err != nil {
			return err
		}
	}
}

// next waits for the piece of that number, or the oldest that is kept, and
// returns the number after it.
func (o *Output) next(ctx context.Context, at int) (piece, int, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for at >= o.first+len(o.pieces) {
		if o.closed || ctx.Err() != nil {
			return piece{}, at, false
		}
		o.news.Wait()
	}
	if ctx.Err() != nil {
		return piece{}, at, false
	}
	at = max(at, o.first)
	return o.pieces[at-o.first], at + 1, true
}

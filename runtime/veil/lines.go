package veil

import (
	"bytes"
	"sync"
)

// Bounds in bytes: of a line, and of what goes from the end of a longer one, in
// which a value may have begun.
const (
	longestLine = 256 << 10
	ragged      = 64 << 10
)

// Lines passes what is written to it on, whole lines at a time and with the
// values hidden: one value may come in two writes.
type Lines struct {
	veil *Veil
	next func(line []byte)

	mu   sync.Mutex
	line []byte
	long bool // the rest of the line is passed over
}

// Lines are those of one stream; next gets each with its newline.
func (v *Veil) Lines(next func(line []byte)) *Lines { return &Lines{veil: v, next: next} }

// Write never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for piece := range bytes.Lines(p) {
		l.take(piece)
	}
	return len(p), nil
}

func (l *Lines) take(piece []byte) {
	ended := bytes.HasSuffix(piece, []byte("\n"))
	if !l.long {
		room := longestLine - len(l.line)
		l.line = append(l.line, piece[:min(len(piece), room)]...)
		if len(piece) > room {
			l.cut()
		}
	}
	if !ended {
		return
	}
	l.flush()
	l.long = false
}

func (l *Lines) cut() {
	shown := l.veil.Hide(l.line)
	l.next(append(bytes.Clone(shown[:max(0, len(shown)-ragged)]), "... (cut)\n"...))
	l.line, l.long = nil, true
}

func (l *Lines) flush() {
	if len(l.line) > 0 {
		l.next(l.veil.Hide(l.line))
	}
	l.line = l.line[:0]
}

// Flush passes on what has no end of its line, once nothing more comes.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		l.line = append(l.line, '\n')
	}
	l.flush()
}

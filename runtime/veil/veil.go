// Package veil hides known values in text that others write: a log of requests
// holds what was asked for, encoded as its writer likes. Who wants to show a
// value can (in base64, or in halves): it is against accidents.
package veil

import (
	"bytes"
	"slices"
	"sync"
)

// Shortest value that is hidden, in bytes: what is shorter is in half of all
// lines.
const Shortest = 8

// longest is of a part that is looked for, in bytes.
const longest = 4 << 10

const placeholder = "[secret]"

// Veil hides values. The zero one hides nothing.
type Veil struct {
	mu     sync.RWMutex
	values [][]byte
}

// New hides these values: as they are, in lower case, percent-encoded, and
// escaped as in JSON and Go, also one in the other.
func New(values []string) *Veil {
	v := &Veil{}
	v.Add(values)
	return v
}

// Add hides further values from now on.
func (v *Veil) Add(values []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := slices.Clone(v.values) // who hides meanwhile has the other
	for _, value := range values {
		for part := range slices.Chunk(bytes.TrimSpace([]byte(value)), longest) {
			r := readingOf(part)
			all = append(all, r.folded())
			for range mostLevels {
				r, _ = r.decode()
			}
			all = append(all, r.folded())
		}
	}
	all = slices.DeleteFunc(all, func(value []byte) bool { return len(value) < Shortest })
	slices.SortFunc(all, bytes.Compare)
	v.values = slices.CompactFunc(all, bytes.Equal)
}

func (v *Veil) hidden() [][]byte {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.values
}

// Hide returns a line with each known value replaced. It grows no longer, and
// JSON stays JSON.
func (v *Veil) Hide(line []byte) []byte {
	values := v.hidden()
	if len(values) == 0 {
		return line
	}
	hidden := make([]bool, len(line))
	r := readingOf(line)
	mark(values, hidden, r)
	first, more := r.decode()
	for r = first; more; r, more = r.decode() {
		mark(values, hidden, r)
	}
	first.spread(hidden)
	return replaced(line, hidden)
}

// mark notes where values stand.
func mark(values [][]byte, hidden []bool, r reading) {
	text := r.folded()
	for _, value := range values {
		for at := 0; ; at += len(value) {
			i := bytes.Index(text[at:], value)
			if i < 0 {
				break
			}
			at += i
			for j := r.from[at]; j < r.to[at+len(value)-1]; j++ {
				hidden[j] = true
			}
		}
	}
}

func replaced(line []byte, hidden []bool) []byte {
	if !slices.Contains(hidden, true) {
		return line
	}
	out := make([]byte, 0, len(line))
	for i, b := range line {
		switch {
		case !hidden[i]:
			out = append(out, b)
		case i == 0 || !hidden[i-1]:
			out = append(out, placeholder...)
		}
	}
	return out
}

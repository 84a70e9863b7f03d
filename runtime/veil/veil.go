// Package veil hides known values in text that others write: a log of requests
// holds what was asked for, encoded as its writer likes. Who wants to show a
// value can (in base64, or in halves): it is against accidents.
package veil

import (
	"bytes"
	"slices"
)

// Shortest value that is hidden, in bytes: what is shorter is in half of all
// lines.
const Shortest = 8

// longest is of a part that is looked for, in bytes.
const longest = 4 << 10

const mark = "[secret]"

// Veil hides values. The zero one hides nothing.
type Veil struct{ values [][]byte }

// New hides these values: as they are, in lower case, percent-encoded, and
// escaped as in JSON and Go, also one in the other.
func New(values []string) Veil {
	var v Veil
	for _, value := range values {
		for part := range slices.Chunk(bytes.TrimSpace([]byte(value)), longest) {
			r := readingOf(part)
			v.add(r.folded())
			for range mostLevels {
				r, _ = r.decode()
			}
			v.add(r.folded())
		}
	}
	slices.SortFunc(v.values, bytes.Compare)
	v.values = slices.CompactFunc(v.values, bytes.Equal)
	return v
}

func (v *Veil) add(value []byte) {
	if len(value) >= Shortest {
		v.values = append(v.values, value)
	}
}

// Hide returns a line with each known value replaced. It grows no longer, and
// JSON stays JSON.
func (v Veil) Hide(line []byte) []byte {
	if len(v.values) == 0 {
		return line
	}
	hidden := make([]bool, len(line))
	r := readingOf(line)
	v.mark(hidden, r)
	first, more := r.decode()
	for r = first; more; r, more = r.decode() {
		v.mark(hidden, r)
	}
	first.spread(hidden)
	return replaced(line, hidden)
}

// mark notes where values stand.
func (v Veil) mark(hidden []bool, r reading) {
	text := r.folded()
	for _, value := range v.values {
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
			out = append(out, mark...)
		}
	}
	return out
}

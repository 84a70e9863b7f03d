package manifest

import (
	"fmt"
	"maps"
	"strings"
)

// Place is where something is written. The zero value is nowhere.
type Place struct {
	File string
	Line int // zero: somewhere in the file
}

// String is as compilers have it.
func (p Place) String() string {
	if p.Line == 0 {
		return shown(p.File)
	}
	return fmt.Sprintf("%s:%d", shown(p.File), p.Line)
}

// Fault makes an error one about what is written there.
func (p Place) Fault(err error) error {
	if err == nil || p.File == "" {
		return err
	}
	return &Fault{Place: p, Err: err}
}

// Fault is what is wrong with a manifest, which its text names.
type Fault struct {
	Place
	Err error
}

func (f *Fault) Error() string { return f.String() + ": " + f.Err.Error() }

// Unwrap has errors.Is look at what is wrong.
func (f *Fault) Unwrap() error { return f.Err }

// At is where a key of the agent is written, or an entry of a list there.
func (a Agent) At(keys ...string) Place { return a.places.at(a.Source, keys) }

// At is where a key of the bottle is written, or an entry of a list there, by
// what it is called: in its own file, or in that of the parent it is taken from.
func (b Bottle) At(keys ...string) Place { return b.places.at(b.Source, keys) }

// places are those of keys, and of what lists hold, by all keys that lead there.
type places map[string]Place

// between keys: it is in none of them.
const between = "\x00"

// at is the nearest place that is known.
func (p places) at(file string, keys []string) Place {
	for ; len(keys) > 0; keys = keys[:len(keys)-1] {
		if place, ok := p[strings.Join(keys, between)]; ok {
			return place
		}
	}
	return Place{File: file}
}

// over takes what is not known from a parent's.
func (p places) over(parent places) places {
	all := maps.Clone(parent)
	if all == nil {
		return p
	}
	maps.Copy(all, p)
	return all
}

// Package saved writes what was changed of a running bottle's policy into the text
// of the manifest that it began with. All else in there stays as it is written:
// comments, order, quotes, empty lines.
package saved

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"carboy/runtime/egress"
	"carboy/runtime/manifest"
	"carboy/runtime/proxy/policy"
)

// Manifest is a bottle's, as it is now.
type Manifest struct {
	Path string
	Text []byte
	// Bottle is what the text comes to with all that it extends, and Allow the
	// patterns that a start of it would allow.
	Bottle manifest.Bottle
	Allow  []string
}

// After is the text with what a request changes, the same one where it changes
// nothing. How the bottle treats the TLS of hosts is the view's to say. It fails
// with errdefs.ErrInvalidArgument for a wrong request, or ErrFailedPrecondition
// where the text is written in a way that only a person can change.
func (m Manifest) After(r egress.Request, v egress.View) ([]byte, error) {
	patterns, err := r.Patterns()
	if err != nil {
		return nil, err
	}
	own, err := manifest.ParseBottle(m.Path, m.Text)
	if err != nil {
		return nil, err
	}
	want := slices.Clone(own.Egress.Allow)
	edit := func(text string) (string, error) { return text, nil }
	switch r.Do {
	case egress.Allow:
		added := m.missing(patterns, v)
		want = append(want, added...)
		edit = func(text string) (string, error) { return add(text, added) }
	case egress.Deny:
		gone := func(a manifest.Allowed) bool { return denies(patterns, a.Host) }
		want = slices.DeleteFunc(want, gone)
		edit = func(text string) (string, error) { return remove(text, gone, own.Egress.Allow) }
	}
	if slices.Equal(want, own.Egress.Allow) {
		return m.Text, nil
	}
	text, err := keepingEnds(m.Text, edit)
	if err == nil {
		err = m.check(text, own, want)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is written in a way that carboy does not change: edit it yourself (%w): %w", policy.Visible(m.Path), err, errdefs.ErrFailedPrecondition)
	}
	return text, nil
}

// missing are the patterns that the manifest does not allow yet.
func (m Manifest) missing(patterns []policy.Pattern, v egress.View) (all []manifest.Allowed) {
	for _, p := range patterns {
		entry := manifest.Allowed{Host: p.String()}
		if slices.Contains(m.Allow, entry.Host) || slices.ContainsFunc(all, func(a manifest.Allowed) bool { return a.Host == entry.Host }) {
			continue
		}
		const passthrough = "passthrough"
		if tls := cmp.Or(v.TLS(entry.Host), passthrough); !p.Plain() && tls != cmp.Or(m.Bottle.Egress.TLS, passthrough) {
			entry.TLS = tls
		}
		all = append(all, entry)
	}
	return all
}

// denies says whether an entry is one of those that were written.
func denies(patterns []policy.Pattern, host string) bool {
	p, err := policy.ParsePattern(host)
	return err == nil && slices.ContainsFunc(patterns, func(denied policy.Pattern) bool { return egress.Means(denied, p) })
}

// check is an error unless a text says what was wanted, and nothing else changed.
func (m Manifest) check(text []byte, before manifest.Bottle, want []manifest.Allowed) error {
	after, err := manifest.ParseBottle(m.Path, text)
	if err != nil {
		return err
	}
	if !slices.Equal(after.Egress.Allow, want) {
		return fmt.Errorf("egress.allow came to something else")
	}
	before.Egress.Allow, after.Egress.Allow = nil, nil
	a, errA := json.Marshal(before)
	b, errB := json.Marshal(after)
	if err := cmp.Or(errA, errB); err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("more than egress.allow would be changed")
	}
	return nil
}

// keepingEnds edits a text whose lines end in one way, and a mark at its begin.
func keepingEnds(text []byte, edit func(string) (string, error)) ([]byte, error) {
	const mark = "\ufeff"
	body, marked := bytes.CutPrefix(text, []byte(mark))
	plain := bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
	ends := "\n"
	if len(plain) != len(body) {
		ends = "\r\n"
	}
	if !bytes.Equal(bytes.ReplaceAll(plain, []byte("\n"), []byte(ends)), body) {
		return nil, fmt.Errorf("its lines end in more than one way")
	}
	edited, err := edit(string(plain))
	if err != nil {
		return nil, err
	}
	out := bytes.ReplaceAll([]byte(edited), []byte("\n"), []byte(ends))
	if marked {
		out = append([]byte(mark), out...)
	}
	return out, nil
}

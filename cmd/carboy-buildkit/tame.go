package main

import (
	"io"

	"github.com/moby/buildkit/client"
)

// tame writes text that a Dockerfile or a container chose: what would move the
// cursor or worse is shown and not done.
type tame struct{ w io.Writer }

func (t tame) Write(p []byte) (int, error) {
	_, err := t.w.Write(tamed(p))
	return len(p), err
}

func tamed(p []byte) []byte {
	safe := make([]byte, 0, len(p))
	for _, r := range string(p) {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			safe = append(safe, byte(r))
		case r < ' ' || r >= 0x7f && r < 0xa0:
			safe = append(safe, '^', byte(r)&0x1f|0x40)
		case r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c: // other directions of text
			safe = append(safe, "\uFFFD"...)
		default:
			safe = append(safe, string(r)...)
		}
	}
	return safe
}

// tameStatuses is for a display that writes escapes of its own between what a
// build says.
func tameStatuses(in <-chan *client.SolveStatus) chan *client.SolveStatus {
	out := make(chan *client.SolveStatus)
	go func() {
		defer close(out)
		for s := range in {
			tameStatus(s)
			out <- s
		}
	}()
	return out
}

func tameStatus(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		v.Name, v.Error = string(tamed([]byte(v.Name))), string(tamed([]byte(v.Error)))
		if v.ProgressGroup != nil {
			v.ProgressGroup.Name = string(tamed([]byte(v.ProgressGroup.Name)))
		}
	}
	for _, v := range s.Statuses {
		v.ID, v.Name = string(tamed([]byte(v.ID))), string(tamed([]byte(v.Name)))
	}
	for _, l := range s.Logs {
		l.Data = tamed(l.Data)
	}
	for _, w := range s.Warnings {
		w.Short, w.URL = tamed(w.Short), string(tamed([]byte(w.URL)))
		for i := range w.Detail {
			w.Detail[i] = tamed(w.Detail[i])
		}
		if i := w.SourceInfo; i != nil {
			i.Filename, i.Data = string(tamed([]byte(i.Filename))), tamed(i.Data)
		}
	}
}

package runtime

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Trace records the steps of a bring-up and a tear-down: for --timings, and
// for whoever watches from outside. A nil Trace records nothing.
type Trace struct {
	// Out gets a line when a step begins and one when it ends; nil drops them.
	Out   io.Writer
	Start time.Time

	mu    sync.Mutex
	steps []Step
	begun []string
}

// Step is one part of the work; steps overlap.
type Step struct {
	Name  string        `json:"name"`
	Begin time.Duration `json:"begin"` // after the trace's start
	Took  time.Duration `json:"took"`
}

// step begins a step and returns what ends it.
func (t *Trace) step(name string) func() {
	if t == nil {
		return func() {}
	}
	begin := time.Since(t.Start)
	t.line("begin " + name)
	t.mu.Lock()
	t.begun = append(t.begun, name)
	t.mu.Unlock()
	return func() {
		t.mu.Lock()
		t.begun = removeLast(t.begun, name)
		t.steps = append(t.steps, Step{Name: name, Begin: begin, Took: time.Since(t.Start) - begin})
		t.mu.Unlock()
		t.line("end " + name)
	}
}

func removeLast(names []string, name string) []string {
	for i := len(names) - 1; i >= 0; i-- {
		if names[i] == name {
			return slices.Delete(names, i, i+1)
		}
	}
	return names
}

// Current is the step that has begun last and not ended, empty between steps.
func (t *Trace) Current() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.begun) == 0 {
		return ""
	}
	return t.begun[len(t.begun)-1]
}

func (t *Trace) line(text string) {
	if t.Out == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintln(t.Out, text) // whoever watches may go away
}

// Steps are those ended so far, in the order of their ends.
func (t *Trace) Steps() []Step {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Step(nil), t.steps...)
}

// Package verify proves that a bottle is sealed: a probe is a name and a
// function, and says what it saw. Some read back what is in force, some judge
// what a process in the agent's container could do. The start of each bottle
// runs the first, `carboy verify` and the gate all of them.
//
// It changes nothing, and knows nothing of how a network is made: those probes
// come from package runtime.
package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"carboy/runtime/proxy/policy"
)

// Result is what a probe came to.
type Result string

// An unknown result is one of a probe that could not run, or whose control did
// not answer: it proves nothing.
const (
	Pass    Result = "PASS"
	Fail    Result = "FAIL"
	Unknown Result = "UNKNOWN"
)

// Probe is one thing to prove. Its error says what was seen instead, or, if it
// is Unproved, why nothing was proved.
type Probe struct {
	Name string
	Look func(context.Context) (seen string, err error)
}

// Unproved makes an error one of a probe that proved nothing.
func Unproved(err error) error { return unproved{err} }

type unproved struct{ error }

func (u unproved) Unwrap() error { return u.error }

func unknown(format string, args ...any) error { return Unproved(fmt.Errorf(format, args...)) }

// Reads is a look that either finds what is wanted or says what it found.
func Reads(want string, read func() error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return want, read() }
}

// Finding is the result of a probe. Seen is one line, safe for a terminal.
type Finding struct {
	Probe  string `json:"probe"`
	Result Result `json:"result"`
	Seen   string `json:"seen"`
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Probe, f.Result, f.Seen) }

// Findings are in the order of the probes.
type Findings []Finding

// Run runs probes side by side: most of it is waiting.
func Run(ctx context.Context, probes []Probe) Findings {
	all := make(Findings, len(probes))
	var each sync.WaitGroup
	for i, p := range probes {
		each.Go(func() { all[i] = p.run(ctx) })
	}
	each.Wait()
	return all
}

// mostSeen bounds what a finding shows, in bytes: an agent may have chosen it.
const mostSeen = 2000

func (p Probe) run(ctx context.Context) Finding {
	seen, err := p.Look(ctx)
	f := Finding{Probe: p.Name, Result: Pass, Seen: seen}
	if err != nil {
		f.Result, f.Seen = Fail, err.Error()
	}
	var nothing unproved
	if errors.As(err, &nothing) || err != nil && ctx.Err() != nil {
		f.Result = Unknown
	}
	f.Seen = policy.OneLine(f.Seen)
	if len(f.Seen) > mostSeen {
		f.Seen = f.Seen[:mostSeen] + "..."
	}
	return f
}

// Worst is Fail if there is one, else Unknown if there is one.
func (all Findings) Worst() Result {
	worst := Pass
	for _, f := range all {
		if f.Result == Fail || worst == Pass {
			worst = f.Result
		}
	}
	return worst
}

// Err names all that is not proved, a line each, and is nil where all is.
func (all Findings) Err() error {
	var errs []error
	for _, f := range all {
		if f.Result != Pass {
			errs = append(errs, errors.New("  "+f.String()))
		}
	}
	return errors.Join(errs...)
}

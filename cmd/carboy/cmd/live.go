package cmd

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/log"
	"github.com/coreos/go-systemd/v22/daemon"

	"carboy/runtime"
	"carboy/runtime/delegation"
	"carboy/runtime/initproto"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/supervise"
)

// sweepTime bounds what a start waits for what others left.
const sweepTime = 200 * time.Millisecond

// sweep removes what dead bottles left. It must not delay or fail this start:
// it goes on beside it, and what it does not get done stays recorded.
func sweep(ctx context.Context, host *runtime.Host) {
	others := *host
	others.Trace = nil // whose steps are this start's alone
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		if _, err := others.GC(ctx, runtime.Sweep{Patient: true}); err != nil {
			log.G(ctx).WithError(err).Debug("gc before the start")
		}
	}()
	select {
	case <-swept:
	case <-time.After(sweepTime):
	}
}

// chooseRuntime may have to start a sandbox, to see whether it can be used.
func (f *runFlags) chooseRuntime(ctx context.Context, host *runtime.Host, plan *runtime.Plan) (runsc, note string, err error) {
	defer awaiting(f.quiet, func() string { return "looking for a container runtime" }).Close()
	return host.ChooseRuntime(ctx, plan.Runtime)
}

// live brings the bottle up, runs the command and takes the bottle down.
func (f *runFlags) live(ctx context.Context, host *runtime.Host, plan *runtime.Plan, o runtime.UpOptions, term terminal) error {
	var err error
	if f.report == nil { // else the bottle is to outlive its caller's service
		if o.Cgroup, err = delegation.Claim(); err != nil {
			return failed{err}
		}
		o.Decided = deciding()
	}
	shown := showPulls(host, f.quiet, stepsOf(host.Trace, "starting "+plan.Name))
	bottle, err := host.Up(ctx, plan, o)
	shown() // before the agent has the terminal
	if err != nil {
		return failed{err}
	}
	defer f.takeDown(ctx, host, plan, bottle)
	exit, err := f.supervise(ctx, bottle, plan, term)
	if err != nil {
		return failed{err}
	}
	return ended(exit)
}

// takeDown leaves the exit code the command's; what is left is told.
func (f *runFlags) takeDown(ctx context.Context, host *runtime.Host, plan *runtime.Plan, bottle *runtime.Bottle) {
	shown := awaiting(f.quiet, stepsOf(host.Trace, "taking down "+bottle.Name))
	err := bottle.Down(ctx)
	shown.Close()
	if err != nil {
		fmt.Fprintf(os.Stderr, "carboy: %s\n", words(err))
	}
	if plan.Workspace != nil && host.HasResult(ctx, bottle.Instance) {
		fmt.Fprintf(os.Stderr, "carboy: the agent changed its workspace: `carboy diff %s` shows it, `carboy apply %s` takes it over\n", bottle.Name, bottle.Name)
	}
	if f.timings {
		printTimings(os.Stderr, host.Trace.Steps())
	}
}

// ended is the end of a command as carboy's own.
func ended(exit initproto.Exit) error {
	if exit.Reason != "" {
		fmt.Fprintf(os.Stderr, "carboy: %s\n", policy.Escape(exit.Reason)) // the image's text may be in it
	}
	if status := exit.Status(); status != 0 {
		return exitStatus(status)
	}
	return nil
}

// inForeground holds the terminal while the command runs. When ctx ends, by a
// signal to carboy, or nobody reads the output any more, the command is ended
// gracefully.
func inForeground(ctx context.Context, b *runtime.Bottle, o supervise.Options, plan *runtime.Plan, term terminal) (initproto.Exit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams, restore, err := term.connect(plan.TTY, plan.Stdin, cancel)
	if err != nil {
		return initproto.Exit{}, err
	}
	defer restore()
	streams, flush := journalled(b.Name, streams)
	defer flush()
	o.Streams, o.Size = streams, term.size()
	o.Started = func() { tell(daemon.SdNotifyReady, "STATUS="+b.Name+" runs") }
	defer tell(daemon.SdNotifyStopping, "STATUS=taking down "+b.Name)
	o.Say = func(err error) { fmt.Fprintf(os.Stderr, "carboy: %s%s", words(err), term.newline(plan.TTY)) }
	if plan.TTY {
		o.Follow = term.follow
	}
	return supervise.Run(ctx, b, o)
}

// supervise runs the command where this process is.
func (f *runFlags) supervise(ctx context.Context, b *runtime.Bottle, plan *runtime.Plan, term terminal) (initproto.Exit, error) {
	o := supervise.Options{Restarts: f.restarts, Timeout: f.timeout, Idle: f.idle}
	if f.report != nil {
		return f.inBackground(ctx, b, o)
	}
	return inForeground(ctx, b, o, plan, term)
}

// Package supervise runs the agent's command of a bottle: it owns the command's
// streams, keeps its output, lets others look at it, starts it and the proxy
// again, and ends it in time. A terminal in the foreground, a background process
// and a systemd service supervise alike.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"carboy/runtime"
	"carboy/runtime/initproto"
	"carboy/runtime/output"
)

// Options are how a command is supervised.
type Options struct {
	// Streams are the foreground's. The command waits for what takes its
	// output here; nil writers are none.
	Streams initproto.Streams
	Size    initproto.Size
	// Follow tells new sizes of the foreground's terminal until ctx ends; nil
	// is none.
	Follow func(ctx context.Context, resize func(initproto.Size) error)
	// Restarts is how often a command that fails is started again.
	Restarts int
	Timeout  time.Duration // of the command; zero is none
	Idle     time.Duration // without output and traffic; zero is none
	// Say tells an operator at once; the log has it as well.
	Say func(error)
	// Started is called once when the command runs.
	Started func()
}

// StatusTimeout is the exit status of a command that a limit of time ended, as
// timeout(1) has it.
const StatusTimeout = 124

// Run starts the command and returns how it ended. When ctx ends, the command is
// ended gracefully. The caller takes the bottle down.
func Run(ctx context.Context, b *runtime.Bottle, o Options) (initproto.Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{b: b, o: o, size: o.Size, cancel: cancel, grace: runtime.StopTime, ended: make(chan struct{})}
	s.out = output.New(output.NewLog(b.LogDir(), func(err error) { o.Say(err) }))
	if err := b.Serve(context.WithoutCancel(ctx), s); err != nil {
		return initproto.Exit{}, errors.Join(err, s.out.Close())
	}
	live, end := context.WithCancel(ctx)
	if o.Follow != nil {
		go o.Follow(live, s.setSize)
	}
	var beside sync.WaitGroup
	beside.Go(func() {
		if err := b.Tend(live, s.say); err != nil {
			s.say(err)
			cancel(err)
		}
	})
	beside.Go(func() { s.tendProxy(live) })
	beside.Go(func() { s.watchTime(live, cancel) })
	exit, err := s.run(ctx)
	end()
	beside.Wait() // they must not meet the tear-down
	s.finish(exit, err)
	return exit, errors.Join(err, b.Ended(exit, err), s.out.Close())
}

// session is one run of a bottle's command, restarts included.
type session struct {
	b      *runtime.Bottle
	o      Options
	out    *output.Output
	cancel context.CancelCauseFunc // ends the command for good

	mu      sync.Mutex
	process *initproto.Process
	input   *io.PipeWriter
	size    initproto.Size
	grace   time.Duration // between SIGTERM and SIGKILL
	final   bool          // not to be started again
	once    sync.Once     // of Options.Started

	ended chan struct{}
	exit  initproto.Exit
	err   error
}

func (s *session) say(err error) {
	s.out.Note(err.Error())
	s.o.Say(err)
}

func (s *session) finish(exit initproto.Exit, err error) {
	s.mu.Lock()
	s.exit, s.err = exit, err
	s.mu.Unlock()
	close(s.ended)
	s.out.End()
}

// Pauses between a failure and the next start double.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
)

func (s *session) run(ctx context.Context) (initproto.Exit, error) {
	pause := firstPause
	for left := s.o.Restarts; ; left-- {
		exit, err := s.runOnce(ctx)
		if errors.Is(context.Cause(ctx), errTime) {
			return initproto.Exit{Code: StatusTimeout}, err
		}
		if err != nil || exit.Status() == 0 || exit.Reason != "" || left == 0 || ctx.Err() != nil || s.isFinal() {
			return exit, err
		}
		s.say(fmt.Errorf("the command ended with status %d: it is started again in %v", exit.Status(), pause))
		select {
		case <-ctx.Done():
			return exit, nil
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// runOnce starts the command and waits for its end, which it brings about when
// ctx ends.
func (s *session) runOnce(ctx context.Context) (initproto.Exit, error) {
	process, err := s.start()
	if err != nil {
		return initproto.Exit{}, fmt.Errorf("start the agent's command: %w", err)
	}
	defer s.closeInput()
	select {
	case <-process.Started():
		s.once.Do(func() {
			if s.o.Started != nil {
				s.o.Started()
			}
		})
	case <-process.Ended():
	case <-ctx.Done():
	}
	select {
	case <-process.Ended():
	case <-ctx.Done():
		if err := runtime.Stop(process, s.patience()); err != nil {
			return initproto.Exit{}, fmt.Errorf("stop the agent: %w", err)
		}
	}
	return LastWords(ctx, process)
}

func (s *session) start() (*initproto.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	streams := initproto.Streams{Stdout: s.tee(output.Stdout, s.o.Streams.Stdout), Stderr: s.tee(output.Stderr, s.o.Streams.Stderr)}
	if s.b.TakesInput() {
		streams.Stdin, s.input = io.Pipe()
	}
	if s.o.Streams.Stdin != nil && s.process == nil {
		go s.feed(s.o.Streams.Stdin)
	}
	process, err := s.b.Start(streams, s.size)
	if err == nil {
		s.process = process
	}
	return process, err
}

// feed ends with the foreground's input, and with it the command's.
func (s *session) feed(stdin io.Reader) {
	_, _ = io.Copy(s.Input(), stdin)
	s.closeInput()
}

func (s *session) closeInput() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.input != nil {
		_ = s.input.Close()
	}
}

// tee is the log and memory first: who reads in the foreground may go away.
func (s *session) tee(stream output.Stream, foreground io.Writer) io.Writer {
	if foreground == nil {
		return s.out.Writer(stream)
	}
	return tee{s.out.Writer(stream), foreground}
}

type tee struct{ kept, foreground io.Writer }

func (t tee) Write(p []byte) (int, error) {
	_, _ = t.kept.Write(p) // it never fails
	_, _ = t.foreground.Write(p)
	return len(p), nil
}

// lastWordsTime is how long the output of a command that was told to end, and
// its end, may take: whoever reads may have stopped to.
const lastWordsTime = 5 * time.Second

// LastWords waits for the output and the end of a command, but not for ever
// once ctx has ended.
func LastWords(ctx context.Context, p *initproto.Process) (initproto.Exit, error) {
	late, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(lastWordsTime, func() { giveUp(errors.New("nobody takes the command's output")) })
	})
	defer stop()
	return p.Wait(late)
}

// View implements initproto.Agent.
func (s *session) View(ctx context.Context, stdout, stderr io.Writer) (initproto.Exit, error) {
	if err := s.out.View(ctx, stdout, stderr); err != nil {
		return initproto.Exit{}, err
	}
	return s.Wait(ctx)
}

// Wait implements initproto.Agent.
func (s *session) Wait(ctx context.Context) (initproto.Exit, error) {
	select {
	case <-s.ended:
		return s.exit, s.err
	case <-ctx.Done():
		return initproto.Exit{}, context.Cause(ctx)
	}
}

// Input implements initproto.Agent: it goes to the command that runs now.
func (s *session) Input() io.Writer { return input{s} }

type input struct{ s *session }

func (i input) Write(p []byte) (int, error) {
	i.s.mu.Lock()
	to := i.s.input
	i.s.mu.Unlock()
	if to == nil {
		return len(p), nil // it takes none
	}
	return to.Write(p)
}

var errNotStarted = errors.New("the command has not been started")

// Signal implements initproto.Agent.
func (s *session) Signal(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errNotStarted
	}
	s.final = s.final || signal == syscall.SIGKILL
	return s.process.Signal(signal)
}

// Stop implements initproto.Agent.
func (s *session) Stop(grace time.Duration) {
	s.mu.Lock()
	s.grace = max(grace, 0)
	s.mu.Unlock()
	s.cancel(errors.New("somebody asked for the end"))
}

func (s *session) isFinal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.final
}

func (s *session) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grace
}

// Resize implements initproto.Agent. The kernel tells a program of a new size
// only when it differs.
func (s *session) Resize(size initproto.Size) error {
	s.mu.Lock()
	same := s.size == size
	s.mu.Unlock()
	if same && size.Rows > 1 {
		if err := s.setSize(initproto.Size{Rows: size.Rows - 1, Cols: size.Cols}); err != nil {
			return err
		}
	}
	return s.setSize(size)
}

func (s *session) setSize(size initproto.Size) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = size
	if s.process == nil {
		return nil // it starts with this size
	}
	return s.process.Resize(size)
}

package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"carboy/runtime"
	"carboy/runtime/initproto"
	"carboy/runtime/supervise"
)

// supervisorVariable makes a run the supervisor of a bottle in the background,
// and names the file descriptor for what it reports.
const supervisorVariable = "CARBOY_SUPERVISOR_FD"

// detach runs this command line again in a session of its own, and returns when
// its agent runs. What the other process has to say until then goes to our own
// standard error, and its exit status, if it ends, becomes ours.
func detach(ctx context.Context, environ []string, trace *runtime.Trace, secrets handed) error {
	hear, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hear.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, os.Args[1:]...) //nolint:gosec,noctx // ourselves; it outlives ctx
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Env = slices.Clone(environ)
	inherit(c, supervisorVariable, tell)
	if out, ok := trace.Out.(*os.File); ok {
		inherit(c, traceVariable, out)
	}
	given, err := secrets.pipe()
	if err != nil {
		return err
	}
	inherit(c, secretsVariable, given)
	err = c.Start()
	_, _ = tell.Close(), given.Close()
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Signal(syscall.SIGTERM) }) // it is not of our terminal
	defer stop()
	return awaitSupervisor(c, hear)
}

// inherit hands an open file on, whose descriptor a variable names.
func inherit(c *exec.Cmd, variable string, f *os.File) {
	const standard = 3 // descriptors go before
	c.Env = append(c.Env, variable+"="+strconv.Itoa(standard+len(c.ExtraFiles)))
	c.ExtraFiles = append(c.ExtraFiles, f)
}

// awaitSupervisor prints the name that it reports.
func awaitSupervisor(c *exec.Cmd, hear io.Reader) error {
	name, err := bufio.NewReader(hear).ReadString('\n')
	if err == nil {
		_, err = fmt.Fprint(os.Stdout, name)
		return err
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("hear from the supervisor: %w", err)
	}
	var exit *exec.ExitError
	err = c.Wait()
	switch {
	case err == nil:
		return errors.New("the supervisor ended before its agent ran")
	case errors.As(err, &exit) && exit.Exited():
		return exitStatus(exit.ExitCode())
	default:
		return fmt.Errorf("supervisor: %w", err)
	}
}

// inBackground reports when the command runs, and has no terminal from then on.
func (f *runFlags) inBackground(ctx context.Context, b *runtime.Bottle, o supervise.Options) (initproto.Exit, error) {
	b.Separate()
	o.Size = initproto.Size{Rows: 24, Cols: 80}
	o.Say = func(err error) { fmt.Fprintf(os.Stderr, "carboy: %s\n", words(err)) }
	o.Started = func() {
		_, _ = fmt.Fprintln(f.report, b.Name) // who waits for it may have gone
		_ = f.report.Close()
		if err := errors.Join(leaveTerminal(), releaseMemory()); err != nil {
			o.Say(err)
		}
	}
	return supervise.Run(ctx, b, o)
}

// leaveTerminal closes what the caller may be waiting for.
func leaveTerminal() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}

// inheritedFile is a file that the caller opened for us and named in the
// environment, nil without one.
func inheritedFile(variable string) (*os.File, error) {
	text := os.Getenv(variable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.ParseUint(text, 10, 16)
	if err != nil || !inherited(int(fd)) {
		return nil, fmt.Errorf("%s=%s: not a file descriptor that the caller opened: %w", variable, text, errdefs.ErrInvalidArgument)
	}
	return os.NewFile(uintptr(fd), strings.ToLower(variable)), nil
}

// inherited tells descriptors that the caller left to us from our own, which
// are all closed on exec; from here on, this one is as well.
func inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || fd > 2 && flags&unix.FD_CLOEXEC != 0 {
		return false
	}
	unix.CloseOnExec(fd)
	return true
}

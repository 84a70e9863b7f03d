package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// startError is a command that could not be started, with the exit code a
// shell gives for it: 126 cannot be run, 127 not found.
type startError struct {
	code int
	err  error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// process is a command and the pumps of its streams.
type process struct {
	id     uint32
	pid    int
	tty    *os.File // the terminal's master, nil without one
	in     *os.File
	stdin  *initproto.Inlet
	pumps  []*pump
	pumped sync.WaitGroup
	told   chan struct{} // closed when the supervisor knows that it runs
}

func startProcess(w *initproto.Writer, id uint32, spec initproto.Spec) (*process, error) {
	who, err := lookupUser("/", spec.User)
	if err != nil {
		return nil, &startError{126, err}
	}
	if who.uid == 0 && spec.NotRoot {
		return nil, &startError{126, fmt.Errorf("user %q is root in this image: ask for root by -u root, or name another user", spec.User)}
	}
	env := completeEnv(spec.Env, who)
	var name string
	err = asUser(who, func() (err error) {
		name, err = findCommand(spec.Args, env, spec.Dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	std, err := openStreams(spec, who)
	if err != nil {
		return nil, fmt.Errorf("open streams: %w", err)
	}
	defer std.closeChild()
	pid, err := fork(name, spec, env, who, std)
	if err != nil {
		std.closeOurs()
		return nil, err
	}
	p := &process{id: id, pid: pid, tty: std.tty, in: std.in, told: make(chan struct{})}
	p.connect(w, std)
	return p, nil
}

func fork(name string, spec initproto.Spec, env []string, who identity, std *streams) (int, error) {
	attr := &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   env,
		Files: []uintptr{std.child[0].Fd(), std.child[1].Fd(), std.child[2].Fd()},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Setctty:    spec.TTY,
			Ctty:       0,
			Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups},
		},
	}
	pid, err := syscall.ForkExec(name, spec.Args, attr)
	if hideErr := hide(); hideErr != nil {
		panic(hideErr)
	}
	if err == nil {
		return pid, nil
	}
	code := 126
	if errors.Is(err, syscall.ENOENT) {
		code = 127
	}
	if dirErr := asUser(who, func() error { return enterable(spec.Dir) }); dirErr != nil {
		return 0, &startError{126, fmt.Errorf("working directory %q: %w", spec.Dir, dirErr)}
	}
	return 0, &startError{code, fmt.Errorf("run %q: %w", name, err)}
}

func enterable(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = syscall.ENOTDIR
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err // the path is the image's choice
	}
	return err
}

// findCommand looks in PATH as execvp does.
func findCommand(args, env []string, dir string) (string, error) {
	if len(args) == 0 || args[0] == "" {
		return "", &startError{127, errors.New("no command")}
	}
	name := args[0]
	if path.Base(name) != name {
		return name, nil
	}
	for _, p := range searchPath(env) {
		if !path.IsAbs(p) {
			p = path.Join(dir, p)
		}
		full := path.Join(p, name)
		if st, err := os.Stat(full); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", &startError{127, fmt.Errorf("%q: executable file not found in $PATH", name)}
}

func (p *process) connect(w *initproto.Writer, std *streams) {
	p.stdin = initproto.NewInlet(w, initproto.KindStdin, p.id)
	go p.feed()
	p.pump(w, initproto.KindStdout, std.out)
	if std.err != nil {
		p.pump(w, initproto.KindStderr, std.err)
	}
}

// feed passes the input on and then its end.
func (p *process) feed() {
	_ = p.stdin.CopyTo(p.in) // a command need not read its input
	if p.tty == nil {
		_ = p.in.Close()
		return
	}
	_, _ = p.tty.Write([]byte{4}) // as a terminal spells it; the command may be gone
}

func (p *process) pump(w *initproto.Writer, kind initproto.Kind, from *os.File) {
	m := &pump{from: from, to: initproto.NewOutlet(w, kind, p.id), kind: kind}
	p.pumps = append(p.pumps, m)
	p.pumped.Go(m.run)
}

func (p *process) takeInput(b []byte) error {
	if len(b) > 0 {
		return p.stdin.Push(b)
	}
	p.stdin.Close()
	return nil
}

func (p *process) grant(f initproto.Frame) error {
	kind, n, err := f.Credit()
	if err != nil {
		return err
	}
	for _, m := range p.pumps {
		if m.kind == kind {
			return m.to.Grant(n)
		}
	}
	return nil
}

func (p *process) resize(f initproto.Frame) error {
	var size initproto.Size
	if err := f.Decode(&size); err != nil {
		return err
	}
	if p.tty != nil {
		_ = setSize(p.tty, size) // the terminal may be closing
	}
	return nil
}

// finish lets the pumps send what the ended process left behind.
func (p *process) finish() {
	p.stdin.Close()
	for _, m := range p.pumps {
		_ = m.from.SetReadDeadline(time.Now().Add(drainTime))
	}
	p.pumped.Wait()
	for _, m := range p.pumps {
		_ = m.from.Close()
	}
	_ = p.in.Close() // frees a write that a child of the process never reads
}

// drainTime bounds how long output is read after the end of a process. What
// it wrote is in the pipe by then; a child of it may hold the pipe open for
// ever.
const drainTime = 200 * time.Millisecond

// pump carries one output stream.
type pump struct {
	from *os.File
	to   *initproto.Outlet
	kind initproto.Kind
}

func (m *pump) run() {
	buf := make([]byte, initproto.Chunk)
	for {
		n, err := m.from.Read(buf)
		if n > 0 {
			if _, err := m.to.Write(buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			m.drain(buf)
			return
		}
		if err != nil {
			return // end of file, or EIO from a terminal whose other end is closed
		}
	}
}

// drain sends what is in the pipe now, and no more than a pipe can hold.
func (m *pump) drain(buf []byte) {
	rest := io.LimitReader(nonblocking{m.from}, 1<<20)
	_, _ = io.CopyBuffer(struct{ io.Writer }{m.to}, rest, buf)
}

// nonblocking reads what is there and ends where it would wait.
type nonblocking struct{ f *os.File }

func (r nonblocking) Read(b []byte) (n int, err error) {
	raw, err := r.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) })
	if controlErr != nil {
		return 0, controlErr
	}
	if n <= 0 {
		return 0, io.EOF
	}
	return n, err
}

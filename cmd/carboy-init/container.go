package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// container is what carboy-init knows: the commands that run, and whether
// provisioning is over.
type container struct {
	w      *initproto.Writer
	sealed bool
	held   bool

	mu    sync.Mutex
	byID  map[uint32]*process
	byPid map[int]*process
	conns map[uint32]*initproto.Conn
}

func newContainer(w *initproto.Writer) *container {
	return &container{w: w, byID: map[uint32]*process{}, byPid: map[int]*process{}, conns: map[uint32]*initproto.Conn{}}
}

// serve obeys the supervisor until it goes away.
func (c *container) serve(in *bufio.Reader) error {
	for {
		f, err := initproto.ReadFrame(in)
		if err != nil {
			return err
		}
		if err := c.obey(f); err != nil {
			return err
		}
	}
}

func (c *container) obey(f initproto.Frame) error {
	switch f.Kind {
	case initproto.KindFile:
		return c.answer(f, c.putFile(f))
	case initproto.KindListen:
		return c.answer(f, c.listen(f))
	case initproto.KindSeal:
		return c.answer(f, c.seal(f))
	case initproto.KindHold:
		c.held = true
		return c.answer(f, nil)
	case initproto.KindStart:
		return c.start(f)
	case initproto.KindList:
		list, err := processes()
		return c.w.WriteJSON(initproto.KindDone, f.ID, done(list, err))
	default:
		return c.drive(f)
	}
}

func (c *container) answer(f initproto.Frame, err error) error {
	return c.w.WriteJSON(initproto.KindDone, f.ID, done(nil, err))
}

func done(list []initproto.Listed, err error) initproto.Done {
	if err != nil {
		return initproto.Done{Error: err.Error()}
	}
	return initproto.Done{Processes: list}
}

func (c *container) putFile(f initproto.Frame) error {
	var file initproto.File
	if err := f.Decode(&file); err != nil {
		return err
	}
	if c.sealed {
		return errors.New("provisioning is over")
	}
	return writeFile("/", file)
}

func (c *container) seal(f initproto.Frame) error {
	var s initproto.Seal
	if err := f.Decode(&s); err != nil {
		return err
	}
	if c.sealed {
		return errors.New("sealed already")
	}
	if err := dropCapabilities(s.Keep); err != nil {
		return err
	}
	c.sealed = true
	return nil
}

func (c *container) start(f initproto.Frame) error {
	var spec initproto.Spec
	if err := f.Decode(&spec); err != nil {
		return err
	}
	if !c.sealed || c.held {
		return c.refuse(f.ID, &startError{125, errors.New("not ready to run commands")})
	}
	p, err := c.fork(f.ID, spec)
	if err != nil {
		return c.refuse(f.ID, err)
	}
	err = c.w.Write(initproto.Frame{Kind: initproto.KindStarted, ID: f.ID})
	close(p.told)
	return err
}

func (c *container) fork(id uint32, spec initproto.Spec) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock() // held over the fork: reap must find the process by its pid
	p, err := startProcess(c.w, id, spec)
	if err != nil {
		return nil, err
	}
	c.byID[id], c.byPid[p.pid] = p, p
	return p, nil
}

func (c *container) refuse(id uint32, err error) error {
	exit := initproto.Exit{Code: 125, Reason: err.Error()}
	var failed *startError
	if errors.As(err, &failed) {
		exit.Code = failed.code
	}
	return c.w.WriteJSON(initproto.KindExited, id, exit)
}

// drive passes on what concerns a connection or a running process; one that has
// just ended is no error.
func (c *container) drive(f initproto.Frame) error {
	c.mu.Lock()
	p, conn := c.byID[f.ID], c.conns[f.ID]
	c.mu.Unlock()
	if conn != nil {
		return conn.Take(f)
	}
	if p == nil {
		return nil
	}
	var err error
	switch f.Kind {
	case initproto.KindStdin:
		err = p.takeInput(f.Payload)
	case initproto.KindCredit:
		err = p.grant(f)
	case initproto.KindSignal:
		err = c.signal(p, f)
	case initproto.KindResize:
		err = p.resize(f)
	default:
		return fmt.Errorf("frame of kind %d: %w", f.Kind, initproto.ErrProtocol)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "carboy-init: end a process:", err)
		c.kill(p, syscall.SIGKILL) // a peer of the supervisor's may have sent it: the others go on
	}
	return nil
}

func (c *container) signal(p *process, f initproto.Frame) error {
	if len(f.Payload) != 1 {
		return fmt.Errorf("signal of %d bytes: %w", len(f.Payload), initproto.ErrProtocol)
	}
	c.kill(p, syscall.Signal(f.Payload[0]))
	return nil
}

// kill holds the lock so that the process cannot be reaped, and its pid used
// again, in between.
func (c *container) kill(p *process, s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byPid[p.pid] == p {
		_ = unix.Kill(p.pid, s) // it may be a zombie already
	}
}

// reap takes every child that ends, ours and the orphans that fall to pid 1.
func (c *container) reap(children <-chan os.Signal) {
	for range children {
		for c.reapOne() {
		}
	}
}

func (c *container) reapOne() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
	if err == unix.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if p := c.byPid[pid]; p != nil {
		delete(c.byPid, pid)
		go c.finish(p, status)
	}
	return true
}

// finish tells the end of a process after the last of its output.
func (c *container) finish(p *process, status unix.WaitStatus) {
	p.finish()
	c.mu.Lock()
	delete(c.byID, p.id)
	c.mu.Unlock()
	exit := initproto.Exit{Code: status.ExitStatus()}
	if status.Signaled() {
		exit = initproto.Exit{Signal: int(status.Signal())}
	}
	<-p.told
	_ = c.w.WriteJSON(initproto.KindExited, p.id, exit) // serve sees a lost supervisor
}

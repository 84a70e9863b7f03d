package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// streams are both ends of a command's standard streams. With a terminal in
// and out are its master, and err is nil.
type streams struct {
	child [3]*os.File
	in    *os.File
	out   *os.File
	err   *os.File
	tty   *os.File
}

func openStreams(spec initproto.Spec, who identity) (*streams, error) {
	s := &streams{}
	open := s.pipes
	if spec.TTY {
		open = func() error { return s.terminal(spec.Size, who) }
	}
	if err := open(); err != nil {
		s.closeChild()
		s.closeOurs()
		return nil, err
	}
	if !spec.Stdin && !spec.TTY {
		_ = s.in.Close() // an empty input
	}
	return s, nil
}

func (s *streams) pipes() error {
	for i := range s.child {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		switch i {
		case 0:
			s.child[0], s.in = r, w
		case 1:
			s.out, s.child[1] = r, w
		case 2:
			s.err, s.child[2] = r, w
		}
	}
	return nil
}

// terminal makes a pty whose slave belongs to the user, as login does, so that
// programs can open it again by its name.
func (s *streams) terminal(size initproto.Size, who identity) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	s.tty, s.in, s.out = master, master, master
	slave, err := openSlave(master)
	if err != nil {
		return err
	}
	s.child = [3]*os.File{slave, slave, slave}
	if err := slave.Chown(int(who.uid), -1); err != nil {
		return err
	}
	return setSize(master, size)
}

func openSlave(master *os.File) (*os.File, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	var number int
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if controlErr != nil {
		return nil, controlErr
	}
	if err != nil {
		return nil, fmt.Errorf("unlock terminal: %w", err)
	}
	return os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}

func setSize(tty *os.File, size initproto.Size) error {
	if size.Rows == 0 && size.Cols == 0 {
		return nil
	}
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}

// closeChild drops our copies of the command's ends.
func (s *streams) closeChild() {
	for _, f := range s.child {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (s *streams) closeOurs() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			_ = f.Close()
		}
	}
}

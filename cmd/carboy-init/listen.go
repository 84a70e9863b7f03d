package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// listen opens a socket for one user and passes its connections on.
func (c *container) listen(f initproto.Frame) error {
	var l initproto.Listen
	if err := f.Decode(&l); err != nil {
		return err
	}
	if c.sealed {
		return errors.New("provisioning is over")
	}
	socket, err := openSocket("/", l)
	if err != nil {
		return err
	}
	go c.acceptAll(socket)
	return nil
}

// openSocket replaces what stands at the path, as writeFile does.
func openSocket(rootDir string, l initproto.Listen) (_ *os.File, err error) {
	who, err := lookupUser(rootDir, l.Owner)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(rootDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name := strings.TrimPrefix(path.Clean("/"+l.Path), "/")
	if err := checkPlace(root, name); err != nil {
		return nil, err
	}
	if err := makeParents(root, path.Dir(name), who); err != nil {
		return nil, err
	}
	if err := root.RemoveAll(name); err != nil {
		return nil, fmt.Errorf("replace: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), l.Path)
	defer func() {
		if err != nil {
			err = errors.Join(err, socket.Close())
		}
	}()
	// No code of the image runs yet that could be faster than the two below.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path.Join(rootDir, name)}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := errors.Join(root.Chmod(name, 0o600), root.Lchown(name, int(who.uid), int(who.gid))); err != nil {
		return nil, err
	}
	return socket, unix.Listen(fd, unix.SOMAXCONN)
}

// acceptAll takes as many connections as the supervisor does: further ones wait
// in the socket's queue.
func (c *container) acceptAll(socket *os.File) {
	places := make(chan struct{}, initproto.MostConns)
	for id := uint32(initproto.FirstConn); id >= initproto.FirstConn; id++ { // until it begins anew
		places <- struct{}{}
		local, err := accept(socket)
		if err != nil {
			fmt.Fprintln(os.Stderr, "carboy-init: accept:", err)
			return
		}
		go func() {
			c.carry(id, local)
			<-places
		}()
	}
}

// acceptPause is before another try where there is no memory or descriptor.
const acceptPause = 100 * time.Millisecond

func accept(socket *os.File) (*os.File, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var fd int
		readErr := raw.Read(func(s uintptr) bool {
			fd, _, err = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case readErr != nil:
			return nil, readErr
		case err == nil:
			return os.NewFile(uintptr(fd), "connection"), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		default:
			time.Sleep(acceptPause)
		}
	}
}

// carry returns when both ends have closed.
func (c *container) carry(id uint32, local *os.File) {
	conn := initproto.NewConn(c.w, id)
	c.mu.Lock()
	c.conns[id] = conn
	c.mu.Unlock()
	if c.w.Write(initproto.Frame{Kind: initproto.KindOpen, ID: id}) != nil {
		return // serve sees a lost supervisor
	}
	go func() {
		_, _ = io.Copy(local, conn) // either may close at any time
		_ = local.Close()
	}()
	_, _ = io.Copy(conn, local)
	_ = conn.Close()
	<-conn.Closed()
	c.mu.Lock()
	delete(c.conns, id)
	c.mu.Unlock()
}

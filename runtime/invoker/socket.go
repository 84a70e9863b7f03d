package invoker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// DialUnix connects to a socket with the user's rights. The server sees the
// caller's uid: the kernel tells it that, and not the rights to files.
func (u User) DialUnix(path string) (*net.UnixConn, error) {
	at, err := u.open(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), path)
	defer socket.Close() // FileConn has its own
	// By the descriptor: what is at the path may be another file by now.
	err = u.Do(func() error {
		return unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", at.Fd())})
	})
	if err != nil {
		return nil, u.explain(&fs.PathError{Op: "connect to", Path: path, Err: err})
	}
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no unix socket", path), conn.Close())
	}
	return unixConn, nil
}

// BehindSudo says whether the user called this process by sudo.
func (u User) BehindSudo() bool { return os.Geteuid() == 0 && u.UID != 0 }

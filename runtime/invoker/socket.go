package invoker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// DialUnix connects to a socket of the user's, with the user's rights. The
// server sees the caller's uid, the kernel tells it that and not the rights to
// files: so it has to run as the user.
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
	if err := u.checkServer(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), conn.Close())
	}
	return unixConn, nil
}

// checkServer refuses one of somebody else's: it takes this process, by its uid,
// for root.
func (u User) checkServer(fd int) error {
	if os.Geteuid() == u.UID {
		return nil
	}
	server, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	if int(server.Uid) != u.UID {
		return fmt.Errorf("the program behind it runs as uid %d and not as %s, uid %d: %w", server.Uid, u.Name, u.UID, fs.ErrPermission)
	}
	return nil
}

// BehindSudo says whether the user called this process by sudo.
func (u User) BehindSudo() bool { return os.Geteuid() == 0 && u.UID != 0 }

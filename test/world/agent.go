package world

import (
	"net"
	"runtime"

	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// ListenAs is a socket of a user's: the kernel tells a peer who called
// listen(2). It needs root.
func ListenAs(path string, uid int) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends, with its uid
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			err = errno
			return
		}
		l, err = net.Listen("unix", path)
	}()
	<-done
	return l, err
}

// LendKeys answers as an ssh-agent until the listener is closed.
func LendKeys(l net.Listener, keys agent.Agent) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_ = agent.ServeAgent(keys, conn) // ends with its client
			_ = conn.Close()
		}()
	}
}

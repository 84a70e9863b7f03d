package invoker

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setgroups changes the calling thread alone.
func setgroups(groups []uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

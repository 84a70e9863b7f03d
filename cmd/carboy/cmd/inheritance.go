package cmd

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// shedLimits takes the host's limits of resources for those that the caller set.
// By his, a database of groups would be asked and not answer in full, or a CNI
// plugin leave an address that nobody gives back.
func shedLimits() error {
	for _, resource := range []int{unix.RLIMIT_CPU, unix.RLIMIT_FSIZE, unix.RLIMIT_DATA, unix.RLIMIT_STACK, unix.RLIMIT_AS, unix.RLIMIT_NOFILE} {
		if err := shedLimit(resource); err != nil {
			return fmt.Errorf("raise limit %d of the caller, see getrlimit(2): %w", resource, err)
		}
	}
	return nil
}

func shedLimit(resource int) error {
	const first = 1 // process: has what the host has
	var host, own unix.Rlimit
	if err := errors.Join(unix.Prlimit(first, resource, nil, &host), unix.Prlimit(0, resource, nil, &own)); err != nil {
		return err
	}
	if resource != unix.RLIMIT_NOFILE {
		return unix.Prlimit(0, resource, &host, nil)
	}
	// The first process of a host may have a limit of a billion, up to which older
	// programs close descriptors one by one.
	const least, most = 1 << 10, 1 << 16
	host.Max = min(host.Max, most)
	host.Cur = host.Max
	err := unix.Prlimit(0, resource, &host, nil)
	if errors.Is(err, unix.EPERM) && own.Max >= least { // in a container, which has less than its host
		own.Cur = own.Max
		err = unix.Prlimit(0, resource, &own, nil)
	}
	return err
}

// neverStop keeps a caller's terminal from stopping a process that holds what
// everybody waits for. What it starts has that from it.
func neverStop() { signal.Ignore(syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU) }

package main

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ownKinds of mounts hold nothing of the host's.
var ownKinds = []string{"cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs"}

// searchTime bounds the search for sockets in what is mounted.
const searchTime = 2 * time.Second

// sockets finds those of the host: each that is mounted by itself, and each in
// a mount that answers and belongs to a process outside.
func (l lookout) sockets() {
	deadline, over := time.Now().Add(searchTime), false
	for _, fields := range l.read("/proc/self/mountinfo") {
		at, kind := mount(fields)
		if at == "" || at == "/" || slices.Contains(ownKinds, kind) {
			continue
		}
		if isSocket(at) {
			l.HostSockets = append(l.HostSockets, at)
			continue
		}
		_ = filepath.WalkDir(at, func(path string, e fs.DirEntry, err error) error {
			if over = time.Now().After(deadline); over {
				return fs.SkipAll
			}
			if err == nil && e.Type()&fs.ModeSocket != 0 && ofHost(path) {
				l.HostSockets = append(l.HostSockets, path)
			}
			return nil // what cannot be read here cannot be by the agent
		})
	}
	if over {
		l.Errors = append(l.Errors, "what is mounted takes longer to search than "+searchTime.String())
	}
	l.HostSockets = slices.Compact(l.HostSockets)
}

// mount is where one is and its file system's kind (proc_pid_mountinfo(5)).
func mount(fields []string) (at, kind string) {
	const point = 4
	dash := slices.Index(fields, "-")
	if dash < 0 || dash+1 >= len(fields) || len(fields) <= point {
		return "", ""
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[point]), fields[dash+1]
}

// ofHost: a peer in no pid namespace of ours has the number zero.
func ofHost(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	if unix.Connect(fd, &unix.SockaddrUnix{Name: path}) != nil {
		return false
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && cred.Pid == 0
}

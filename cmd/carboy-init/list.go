package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"carboy/runtime/initproto"
)

// Bounds on what a container full of processes is told as: a frame has to hold
// it.
const (
	mostListed  = 1024
	longestLine = 256
)

// processes reads /proc, which shows the container's own.
func processes() ([]initproto.Listed, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []initproto.Listed
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || len(list) == mostListed {
			continue
		}
		if p, err := readProcess(pid); err == nil { // else it has just ended
			list = append(list, p)
		}
	}
	return list, nil
}

// readProcess takes fields of stat by their numbers in proc(5), counted from
// the one after the name.
func readProcess(pid int) (initproto.Listed, error) {
	const (
		parent, user, system, resident = 1, 11, 12, 21
		tick                           = 10 * time.Millisecond // USER_HZ is 100 on every architecture of ours
	)
	p := initproto.Listed{PID: pid}
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return p, err
	}
	p.UID = int(info.Sys().(*syscall.Stat_t).Uid)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if open < 0 || len(fields) <= resident {
		return p, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(fields[i], 10, 64) // the kernel's
		return n
	}
	p.Parent = int(number(parent))
	p.CPU = time.Duration(number(user)+number(system)) * tick
	p.Memory = number(resident) * int64(os.Getpagesize())
	p.Command = string(bytes.TrimRight(stat[open+1:end], "\x00"))
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(line) > 0 {
		p.Command = string(bytes.ReplaceAll(bytes.TrimRight(line[:min(len(line), longestLine)], "\x00"), []byte{0}, []byte{' '}))
	}
	return p, nil
}

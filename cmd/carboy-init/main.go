// Command carboy-init is the first process of each of a bottle's containers.
// It writes the files it is given, runs the commands it is told to, carries
// their streams and reaps every orphan. It lives on a pair of pipes to the
// supervisor and dies with them, and everything in the container with it.
//
// It is not an init system, and takes nothing from the image: no argument, no
// environment, no file but the user database.
//
// `carboy-init connect` is no first process but a way through the proxy for ssh,
// and `carboy-init verify` tries what an agent must not be able to do.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "probe" {
		return // a runtime that got this far can start a sandbox
	}
	work := run
	switch {
	case len(os.Args) > 1 && os.Args[1] == "connect":
		work = func() error { return connect(os.Args[2:], os.Stdin, os.Stdout) }
	case len(os.Args) == 2 && os.Args[1] == "verify":
		work = func() error { return verify(os.Stdin, os.Stdout) }
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "carboy-init:", err)
		os.Exit(125)
	}
}

func run() error {
	if err := hide(); err != nil { // before anything is read
		return err
	}
	children := shieldSignals()
	warmThreads()
	w := initproto.NewWriter(os.Stdout)
	in := bufio.NewReaderSize(os.Stdin, 2*initproto.Chunk)
	if _, err := initproto.Handshake(in, w); err != nil {
		return err
	}
	c := newContainer(w)
	go c.reap(children)
	err := c.serve(in)
	if c.held {
		select {}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// hide keeps the agent, which may share our uid, from opening our pipes through
// /proc, reading our memory and tracing us. Every change of ids undoes it where
// fs.suid_dumpable is not zero, a child's between fork and exec too, which has
// our memory then.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	return nil
}

// shieldSignals catches every signal that can be caught and drops all but the
// end of a child: root in the container may signal us. Ignoring them instead
// would be inherited by commands.
func shieldSignals() <-chan os.Signal {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	drop := make(chan os.Signal, 1)
	signal.Notify(drop)
	go func() {
		for range drop {
		}
	}()
	return children
}

// warmThreads makes the threads we may need later, because a fork bomb in the
// container leaves no process for them and the Go runtime ends without one.
func warmThreads() {
	const threads = 12
	for range threads {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			pause := unix.NsecToTimespec(int64(5 * time.Millisecond))
			_ = unix.Nanosleep(&pause, nil) // in the kernel, so that each has a thread of its own
		}()
	}
}

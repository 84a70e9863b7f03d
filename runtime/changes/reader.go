package changes

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"carboy/runtime/beneath"
	"carboy/runtime/invoker"
)

// reader is a directory that is read with somebody's rights.
type reader struct {
	in *beneath.Dir
	do func(func() error) error
}

func directly(f func() error) error { return f() }

// as runs f with a reader on a thread that has a user's rights.
func as(u invoker.User, top *os.File, f func(reader) error) error {
	r := reader{in: beneath.In(top)}
	jobs, stopped := make(chan func()), make(chan error, 1)
	go func() {
		stopped <- u.Do(func() error {
			for job := range jobs {
				job()
			}
			r.in.Forget()
			return nil
		})
	}()
	var broken error // a thread that could not take on the rights takes no job
	r.do = func(f func() error) error {
		if broken != nil {
			return broken
		}
		done := make(chan error, 1)
		select {
		case jobs <- func() { done <- f() }:
			return <-done
		case broken = <-stopped:
			return broken
		}
	}
	err := f(r)
	close(jobs)
	if broken == nil {
		broken = <-stopped
	}
	return errors.Join(err, broken)
}

// reading gives f what was before.
func (s Sides) reading(f func(reader) error) error {
	if s.User != nil {
		return as(*s.User, s.Before, f)
	}
	r := reader{beneath.In(s.Before), directly}
	defer r.in.Forget()
	return f(r)
}

func (r reader) stat(path string) (st unix.Stat_t, err error) {
	return st, r.do(func() (err error) {
		st, err = r.in.Stat(path)
		return err
	})
}

func (r reader) readlink(path string) (target string, err error) {
	return target, r.do(func() (err error) {
		target, err = r.in.Readlink(path)
		return err
	})
}

func (r reader) open(path string, flags int) (f *os.File, err error) {
	return f, r.do(func() (err error) {
		f, err = r.in.Open(path, flags, 0)
		return err
	})
}

// openFile opens a regular file for reading, and never waits.
func (r reader) openFile(path string) (*os.File, error) {
	f, err := r.open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("open %q: not a regular file", path), err, f.Close())
	}
	return f, nil
}

package cmd

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
)

// longestTask is what fits an argument of a program on Linux (MAX_ARG_STRLEN),
// in bytes.
const longestTask = 128<<10 - 1

// setTask settles a run without a person: nobody is asked, and the command gets
// no terminal and no input unless that was asked for.
func (f *runFlags) setTask() error {
	f.headless = f.headless || f.tasked
	if !f.headless {
		return nil
	}
	f.yes = true
	if f.tty == "" {
		f.tty = "false"
	}
	if f.stdin == "" {
		f.stdin = "false"
	}
	if f.Task == "-" {
		if f.detach {
			return fmt.Errorf("a task from standard input cannot go to the background: give it as --prompt TEXT: %w", errdefs.ErrInvalidArgument)
		}
		b, err := io.ReadAll(io.LimitReader(os.Stdin, longestTask+1))
		if err != nil {
			return fmt.Errorf("read the task from standard input: %w", err)
		}
		f.Task = strings.TrimSpace(string(b))
	}
	if f.tasked && f.Task == "" { // an empty variable of a script would start a conversation
		return fmt.Errorf("the task is empty: give it as --prompt TEXT, or none for a conversation: %w", errdefs.ErrInvalidArgument)
	}
	if len(f.Task) > longestTask {
		return fmt.Errorf("the task is longer than %d bytes: put it into a file of the workspace: %w", longestTask, errdefs.ErrInvalidArgument)
	}
	if strings.ContainsRune(f.Task, 0) {
		return fmt.Errorf("the task holds a NUL byte: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

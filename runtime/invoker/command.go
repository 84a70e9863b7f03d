package invoker

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Command is a program that runs as the user, whole: in a session of its own,
// so that it cannot write to the caller's terminal, with an environment that
// says nothing of the caller, and with the end of ctx its group is killed. Its
// name is looked up with the user's rights.
func (u User) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"--", name}, args...)...)
	c.Env = u.environment()
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		groups := []uint32{}
		for _, g := range u.Groups {
			groups = append(groups, uint32(g))
		}
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID), Groups: groups}
	}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	return c
}

// environment has the user's own directories of programs, unless he is root.
func (u User) environment() []string {
	path := []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	env := []string{"USER=" + u.Name, "LOGNAME=" + u.Name, "LANG=C.UTF-8"}
	if filepath.IsAbs(u.Home) {
		env = append(env, "HOME="+u.Home)
		if u.UID != 0 {
			path = append(path, filepath.Join(u.Home, ".local", "bin"), filepath.Join(u.Home, "bin"))
		}
	}
	return append(env, "PATH="+strings.Join(path, ":"))
}

// Interactive is a Command that has the caller's terminal: its streams, its kind
// and its session, as an editor needs them. Ctrl-C reaches it as it reaches us.
func (u User) Interactive(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := u.Command(ctx, name, args...)
	c.SysProcAttr.Setsid = false
	c.Cancel = func() error { return c.Process.Kill() }
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	for _, kept := range []string{"TERM", "COLORTERM", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR"} {
		if value, ok := os.LookupEnv(kept); ok {
			c.Env = append(c.Env, kept+"="+value)
		}
	}
	return c
}

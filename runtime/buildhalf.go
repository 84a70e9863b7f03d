package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"carboy/runtime/buildproto"
	"carboy/runtime/invoker"
	"carboy/runtime/version"
)

// half is a running process of carboy-buildkit with our end of its link.
type half struct {
	cmd  *exec.Cmd
	link *buildproto.Link
}

// startHalf starts one, in a process group of its own: a terminal's signals are
// for carboy, which ends it by its link.
func (h *Host) startHalf(command string, as *syscall.Credential, env []string, wire, stderr *os.File) (_ *half, err error) {
	path := filepath.Join(h.Libexec, "carboy-buildkit")
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("carboy's helper for builds is not in %s: install carboy with its libexec directory (make install): %w", h.Libexec, err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, err
	}
	c := exec.Command(path, command, version.Build)
	c.Env = env
	if stderr != nil {
		c.Stderr = stderr
	}
	c.ExtraFiles = []*os.File{theirs}
	if wire != nil {
		c.ExtraFiles = append(c.ExtraFiles, wire)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	if err := c.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", path, err), conn.Close())
	}
	return &half{cmd: c, link: buildproto.NewLink(conn)}, nil
}

func socketPair() (near, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far"), nil
}

// end closes the link, which is the order to end, and waits.
func (p *half) end(patience time.Duration) error {
	err := p.link.Close()
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	return errors.Join(err, p.cmd.Wait())
}

// converse answers a controller until its last message.
func (p *half) converse(ctx context.Context, c buildproto.Controller, outlet *buildNetwork) (buildproto.Ask, error) {
	if err := p.link.Send(c); err != nil {
		return buildproto.Ask{}, err
	}
	for {
		var ask buildproto.Ask
		if err := p.link.Receive(&ask); err != nil {
			return ask, err
		}
		if ask.Done {
			return ask, nil
		}
		if ask.Network {
			if err := p.link.Send(outlet.answer(ctx)); err != nil {
				return ask, err
			}
		}
	}
}

// printableLines is text that a Dockerfile had a part in.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// credential is nil where nothing is to be dropped.
func credential(u invoker.User) *syscall.Credential {
	if os.Geteuid() != 0 || u.UID == 0 {
		return nil
	}
	c := &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	for _, g := range u.Groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}

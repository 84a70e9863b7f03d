package test

import (
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// manager is systemd as far as a service hears and tells of it.
type manager struct {
	path string
	said lockedBuffer // what services told, a line each
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		message := make([]byte, 4096)
		for {
			n, err := conn.Read(message)
			if err != nil {
				return
			}
			_, _ = m.said.Write(append(message[:n:n], '\n'))
		}
	}()
	return m
}

func (m *manager) heard(line string) bool {
	return slices.Contains(strings.Split(m.said.String(), "\n"), line)
}

// serve makes a command line a service's.
func (m *manager) serve(c *exec.Cmd) *exec.Cmd {
	c.Env = append(c.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
	return c
}

// TestService: systemd hears that the agent runs, not before, that carboy goes
// on, and that it ends. The agent hears nothing of systemd.
func TestService(t *testing.T) {
	r := newRig(t, 0)
	failing := newManager(t)
	if o := finish(t, failing.serve(r.command(t, append(bottle(), "--", "nosuchprogram")...))); o.code != 127 {
		t.Errorf("no program: %v", o)
	}
	eventually(t, "the end is told", func() bool { return failing.heard("STOPPING=1") })
	if failing.heard("READY=1") {
		t.Errorf("ready without an agent: %s", failing.said.String())
	}

	m := newManager(t)
	c := m.serve(r.command(t, append(bottle("--name", "served"), "--", "sh", "-c", "env; echo it runs; exec sleep 60")...))
	var out lockedBuffer
	c.Stdout, c.Stderr = &out, &lockedBuffer{}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service is ready", func() bool { return m.heard("READY=1") && m.heard("STATUS=served runs") })
	if list := r.ls(t); len(list) != 1 || list[0].State != "running" {
		t.Errorf("ready, and the bottles are %+v", list)
	}
	eventually(t, "the agent speaks", func() bool { return strings.Contains(out.String(), "it runs") })
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", m.path} {
		if strings.Contains(out.String(), name) {
			t.Errorf("the agent has %s: %s", name, out.String())
		}
	}
	beats := func() int { return strings.Count(m.said.String(), "WATCHDOG=1") }
	before := beats()
	eventually(t, "the watchdog hears more", func() bool { return beats() > before+2 })
	if m.heard("STOPPING=1") {
		t.Errorf("it ends unasked: %s", m.said.String())
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end is told", func() bool { return m.heard("STOPPING=1") })
	if err := c.Wait(); c.ProcessState.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Errorf("after SIGTERM: %v", err)
	}
}

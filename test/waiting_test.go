package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// brake is a directory of CNI plugins that wait while it is on.
type brake string

func newBrake(t *testing.T) brake {
	t.Helper()
	return brake(pluginDir(t, `while [ -e HERE/on ]; do sleep 0.02; done; exec REAL`))
}

func (b brake) on(t *testing.T) {
	t.Helper()
	write(t, filepath.Join(string(b), "on"), "", 0o600)
}

func (b brake) off(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(string(b), "on")); err != nil {
		t.Fatal(err)
	}
}

var erasure = regexp.MustCompile(`\x1b\[(\d+)A\x1b\[J`)

// left is what a reader sees of the screen at the end.
func (s *session) left(t *testing.T) string {
	t.Helper()
	text := strings.ReplaceAll(s.screen.String(), "\r", "")
	for {
		at := erasure.FindStringSubmatchIndex(text)
		if at == nil {
			return text
		}
		up, err := strconv.Atoi(text[at[2]:at[3]])
		lines := strings.SplitAfter(text[:at[0]], "\n")
		if err != nil || len(lines) <= up || lines[len(lines)-1] != "" {
			t.Fatalf("erases what is not a line of its own: %q", s.screen.String())
		}
		text = strings.Join(lines[:len(lines)-1-up], "") + text[at[1]:]
	}
}

// leaves waits for an end at which nothing is left of the waiting.
func (s *session) leaves(t *testing.T, begin, end string) {
	t.Helper()
	if code := s.ends(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	eventually(t, "the screen's last state: "+end, func() bool {
		left := s.left(t)
		return strings.HasPrefix(left, begin) && strings.HasSuffix(left, end) && !strings.Contains(left, "carboy:")
	})
}

// TestWaiting: what is waited for is said on a terminal, and only until it has
// come.
func TestWaiting(t *testing.T) {
	r := newRig(t, 1)
	t.Run("bring-up and tear-down", func(t *testing.T) {
		b := newBrake(t)
		b.on(t)
		agent := append(bottle("--cni-bin-dir", string(b)), "--", "sh", "-c", "echo it ran; read x")
		dumb := r.openWith(t, []string{"TERM=dumb"}, agent...)
		quiet := r.open(t, append([]string{"run", "-q", "--name", "quiet"}, agent[1:]...)...)
		piped := newPiped(t, r.command(t, append([]string{"run", "--name", "piped"}, agent[1:]...)...))
		s := r.open(t, append([]string{"run", "--name", "actor"}, agent[1:]...)...)
		s.shows(t, "carboy: starting actor: network ... 2s\n")
		b.off(t)
		for _, s := range []*session{s, dumb, quiet} {
			s.shows(t, "it ran\n")
		}
		b.on(t)
		for _, s := range []*session{dumb, quiet, s} {
			s.typed(t, "\r")
		}
		s.shows(t, "carboy: taking down actor: remove network ... 1s\n")
		b.off(t)
		for _, s := range []*session{s, dumb, quiet} {
			s.leaves(t, "agent ", "disk 20GiB\nit ran\n\n")
		}
		piped.wait(t)
		for _, said := range []string{dumb.screen.String(), quiet.screen.String(), piped.stderr.String()} {
			if strings.Contains(said, "carboy: ") || strings.Contains(said, "\x1b[J") {
				t.Errorf("%q", said)
			}
		}
	})
	t.Run("stop", func(t *testing.T) {
		name := r.detach(t, "--", "sh", "-c", stubborn)
		s := r.open(t, "stop", "-t", "2", name)
		s.shows(t, "carboy: waiting for "+name+" to end ... 1s\n")
		s.leaves(t, name, name+"\n")
	})
	t.Run("containerd", func(t *testing.T) {
		if err := r.containerd.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		resume := sync.OnceFunc(func() {
			if err := r.containerd.Resume(); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(resume)
		s := r.open(t, "ls")
		quiet := r.open(t, "ls", "-q")
		s.shows(t, "carboy: waiting for containerd at "+r.containerd.Address+" ... 2s\n")
		resume()
		s.leaves(t, "NAME ", "OWNER\n")
		if quiet.leaves(t, "", ""); quiet.screen.String() != "" {
			t.Errorf("%q", quiet.screen.String())
		}
	})
}

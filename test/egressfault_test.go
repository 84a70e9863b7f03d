package test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEgressFaults: a policy is in force when the command says so, or the one before
// is and the command fails.
func TestEgressFaults(t *testing.T) {
	r := newRig(t, 1)
	for _, engine := range engines(t) {
		t.Run(engine, func(t *testing.T) {
			s := &steered{r.start(t, append(engineFlags(engine), "--allow", "allowed.test", "--allow", "denied.test")...), engine}
			s.checkHung(t)
			s.checkUnwritable(t)
			s.stop(t)
		})
	}
	t.Run("interception", func(t *testing.T) {
		needPipelock(t)
		s := &steered{r.start(t, append(engineFlags("pipelock"), "--intercept", "denied.test", "--allow", "tcp:allowed.test:8443")...), "pipelock"}
		s.checkNotReloaded(t)
		s.stop(t)
	})
}

// checkHung: an engine that does not answer is started again.
func (s *steered) checkHung(t *testing.T) {
	t.Helper()
	pid := s.enginePID(t)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.rig.mustRun(t, "egress", "deny", s.name, "denied.test")
	if s.enginePID(t) == pid || s.gets(t, "denied.test") || !s.gets(t, "allowed.test") {
		t.Error("the policy is not in force")
	}
	if told := s.stderr.String(); strings.Contains(told, "cut off") {
		t.Errorf("it was told as a crash: %s", told)
	}
}

// checkUnwritable: a policy that cannot be written changes nothing, and the attempt
// is in the record.
func (s *steered) checkUnwritable(t *testing.T) {
	t.Helper()
	dir := filepath.Join(s.inspect(t).RunDir, "proxy")
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if o := s.rig.run(t, "egress", "allow", s.name, "denied.test"); o.code != 1 || !strings.Contains(o.stderr, "read-only") || !strings.Contains(o.stderr, "the policy before it is in force") {
		t.Errorf("%v", o)
	}
	if s.gets(t, "denied.test") || !s.gets(t, "allowed.test") {
		t.Error("it is in force all the same")
	}
	if out := s.rig.mustRun(t, "audit", "show", s.name); !strings.Contains(out, "egress-allow  fail ") {
		t.Errorf("%s", out)
	}
}

// checkNotReloaded: pipelock takes more hosts that pass through for a step back.
func (s *steered) checkNotReloaded(t *testing.T) {
	t.Helper()
	pid, held := s.enginePID(t), s.hold(t, "allowed.test:8443")
	s.steer(t, "allow", "evil.test")
	held.dies(t, runTime)
	if s.enginePID(t) == pid || !s.gets(t, "evil.test") {
		t.Error("the policy is not in force")
	}
	s.steer(t, "pause")
	if s.gets(t, "evil.test") {
		t.Error("a paused bottle gets out")
	}
	s.steer(t, "resume")
	s.steer(t, "deny", "denied.test") // nothing is opened any more
	if s.gets(t, "denied.test") || !s.gets(t, "evil.test") {
		t.Error("another policy is in force")
	}
}

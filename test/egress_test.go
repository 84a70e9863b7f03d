package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"carboy/runtime/audit"
	"carboy/runtime/egress"
	"carboy/runtime/proxy"
)

// steered is a bottle whose policy is changed while it runs.
type steered struct {
	*live
	engine string
}

// TestEgress changes what a bottle may reach, with tunnels open.
func TestEgress(t *testing.T) {
	r := newRig(t, 0)
	for _, engine := range engines(t) {
		t.Run(engine, func(t *testing.T) {
			flags := append(engineFlags(engine), "--allow", "allowed.test", "--allow", "tcp:allowed.test:8443")
			s := &steered{r.start(t, flags...), engine}
			pid, followed := s.enginePID(t), s.follow(t)
			s.checkAllow(t)
			s.checkDeny(t)
			s.checkPause(t)
			if now := s.enginePID(t); now != pid {
				t.Errorf("the engine was started again: %d, then %d", pid, now)
			}
			s.checkRestart(t)
			s.checkRefused(t)
			s.checkRecord(t)
			s.stop(t)
			s.checkLog(t, followed())
		})
	}
}

func (s *steered) enginePID(t *testing.T) int {
	t.Helper()
	return childOf(t, s.inspect(t).PIDs[1])
}

// steer changes the policy, which has to be quick.
func (s *steered) steer(t *testing.T, do string, hosts ...string) {
	t.Helper()
	start := time.Now()
	s.rig.mustRun(t, append([]string{"egress", do, s.name}, hosts...)...)
	took := time.Since(start)
	if t.Logf("%s: %v", do, took.Round(time.Millisecond)); took > time.Second {
		t.Errorf("%s took %v", do, took)
	}
}

// gets says whether the agent reaches a host, and that nothing arrives where not.
func (s *steered) gets(t *testing.T, host string) bool {
	t.Helper()
	s.rig.Reset()
	o := s.exec(t, "probe", "http", "http://"+host+"/")
	all := attempts(t, o.stdout)
	if len(all) != 1 {
		t.Fatalf("%v", o)
	}
	if got := requests(s.rig, "internet/http"); got > 0 != all[0].OK {
		t.Errorf("%v, and %d requests arrived", all[0], got)
	}
	return all[0].OK
}

// tunnel is one that the agent holds open.
type tunnel struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  *bufio.Reader
	ended chan struct{}
}

// connect asks the proxy for a tunnel to an echo, and returns its status.
func (s *steered) connect(t *testing.T, target string) (*tunnel, string) {
	t.Helper()
	c := s.rig.command(t, "exec", "-i", s.name, "--", "nc", "10.66.0.1", "8888")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	held := &tunnel{c, stdin, bufio.NewReader(stdout), make(chan struct{})}
	t.Cleanup(func() { _ = stdin.Close(); held.dies(t, runTime) })
	if _, err := fmt.Fprintf(stdin, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		t.Fatal(err)
	}
	status, _ := held.said.ReadString('\n')
	for line := status; line != "\r\n" && line != ""; {
		line, _ = held.said.ReadString('\n')
	}
	if strings.Contains(status, " 200 ") {
		held.lives(t)
	}
	return held, status
}

func (s *steered) hold(t *testing.T, target string) *tunnel {
	t.Helper()
	held, status := s.connect(t, target)
	if !strings.Contains(status, " 200 ") {
		t.Fatalf("control: a tunnel to %s: %q", target, status)
	}
	return held
}

func (h *tunnel) lives(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(h.stdin, "hello\n"); err != nil {
		t.Error(err)
	}
	if line, err := h.said.ReadString('\n'); line != "hello\n" {
		t.Errorf("the tunnel is dead: %q, %v", line, err)
	}
}

// dies waits for the end of the tunnel at the agent.
func (h *tunnel) dies(t *testing.T, within time.Duration) {
	t.Helper()
	if h.cmd.ProcessState != nil {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, h.said)
		close(h.ended)
	}()
	select {
	case <-h.ended:
	case <-time.After(within):
		t.Errorf("the tunnel lives on after %v", within)
		_ = h.cmd.Process.Kill()
	}
	_ = h.stdin.Close()
	_ = h.cmd.Wait()
}

func (s *steered) checkAllow(t *testing.T) {
	t.Helper()
	if s.gets(t, "denied.test") || !s.gets(t, "allowed.test") {
		t.Fatal("control")
	}
	s.exec(t, "sh", "-c", `printf 'CONNECT \033[2J*.evil.test:443 HTTP/1.1\r\nHost: x\r\n\r\n' | nc 10.66.0.1 8888; printf 'CONNECT 93.184.216.35:443 HTTP/1.1\r\nHost: x\r\n\r\n' | nc 10.66.0.1 8888`)
	s.steer(t, "allow", "denied.test", "tcp:denied.test:8443", "tcp:evil.test:22")
	if !s.gets(t, "denied.test") {
		t.Error("what was allowed is not reached")
	}
	s.hold(t, "evil.test:22") // on a port that no rule had
}

func (s *steered) checkDeny(t *testing.T) {
	t.Helper()
	gone, stays := s.hold(t, "denied.test:8443"), s.hold(t, "allowed.test:8443")
	s.steer(t, "deny", "denied.test")
	gone.dies(t, time.Second)
	if s.gets(t, "denied.test") {
		t.Error("what was denied is reached")
	}
	s.rig.Reset()
	if _, status := s.connect(t, "denied.test:8443"); !strings.Contains(status, " 403 ") {
		t.Errorf("a tunnel to what was denied: %q", status)
	}
	if got := s.rig.Arrivals("internet/tcp"); len(got) != 0 {
		t.Errorf("it arrived: %v", got)
	}
	if s.engine == "allowlist" {
		stays.lives(t)
	} else {
		stays.dies(t, time.Second)
	}
	s.hold(t, "allowed.test:8443")
}

func (s *steered) checkPause(t *testing.T) {
	t.Helper()
	held := s.hold(t, "allowed.test:8443")
	s.steer(t, "pause")
	held.dies(t, time.Second)
	if s.gets(t, "allowed.test") {
		t.Error("a paused bottle gets out")
	}
	if v := s.show(t); !v.Paused || v.Hosts[0].State != "paused" {
		t.Errorf("%+v", v)
	}
	s.steer(t, "resume")
	if !s.gets(t, "allowed.test") || s.gets(t, "denied.test") {
		t.Error("a resumed bottle has another policy than before")
	}
}

func (s *steered) show(t *testing.T) (v egress.View) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.rig.mustRun(t, "egress", "show", "--json", s.name)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// checkRestart: an engine that is started again has the policy of now.
func (s *steered) checkRestart(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(s.enginePID(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the proxy is up again", func() bool { return strings.Contains(s.stderr.String(), "the proxy is up again") })
	if s.gets(t, "denied.test") || !s.gets(t, "allowed.test") {
		t.Error("after a restart it is the policy of the start")
	}
	s.steer(t, "pause")
	if s.gets(t, "allowed.test") {
		t.Error("the new engine does not follow")
	}
	s.steer(t, "resume")
}

// checkRefused: what is wrong changes nothing.
func (s *steered) checkRefused(t *testing.T) {
	t.Helper()
	before := s.show(t)
	for _, args := range [][]string{
		{"deny", s.name, "unknown.test"}, {"allow", s.name, "*"}, {"allow", s.name, "https://denied.test/"}, {"deny", s.name, "allowed.test:443"},
		{"allow", s.name}, {"pause", s.name, "allowed.test"},
	} {
		if o := s.rig.run(t, append([]string{"egress"}, args...)...); o.code != 2 {
			t.Errorf("%v: %v", args, o)
		}
	}
	if after := s.show(t); !slices.Equal(after.Hosts, before.Hosts) {
		t.Errorf("%+v became %+v", before, after)
	}
	if o := s.rig.run(t, "egress", "pause", "nobody"); o.code != 1 {
		t.Errorf("no bottle: %v", o)
	}
}

// follow reads what is decided while the bottle lives.
func (s *steered) follow(t *testing.T) (all func() string) {
	t.Helper()
	c := s.rig.command(t, "egress", "log", "-f", "--json", s.name)
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		if err := c.Wait(); err != nil {
			t.Errorf("egress log -f: %v\n%s", err, &stderr)
		}
		return out.String()
	}
}

// checkLog reads it after the end.
func (s *steered) checkLog(t *testing.T, followed string) {
	t.Helper()
	all := s.rig.mustRun(t, "egress", "log", "--json", s.name)
	if all != followed {
		t.Errorf("followed it is\n%s\nand now\n%s", followed, all)
	}
	seen := map[string]int{}
	for line := range strings.Lines(all) {
		var d proxy.Decision
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Bottle != s.name || d.Time.IsZero() {
			t.Fatalf("%s: %v", line, err)
		}
		seen[fmt.Sprintf("%s %s:%d", d.Verdict, d.Host, d.Port)]++
		if d.Verdict == proxy.Closed && d.Host == "allowed.test" && d.Bytes == 0 {
			t.Errorf("a tunnel without bytes: %s", line)
		}
	}
	for _, want := range []string{"allow allowed.test:80", "deny denied.test:80", "allow denied.test:80", "allow denied.test:8443", "close denied.test:8443", "deny denied.test:8443", "close allowed.test:8443"} {
		if seen[want] == 0 {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
	for line := range strings.Lines(s.rig.mustRun(t, "egress", "log", "--denied", s.name)) {
		if fields := strings.Fields(line); len(fields) < 7 || fields[1] != s.name || fields[2] != "deny" {
			t.Errorf("%q", line)
		}
	}
	lines := s.rig.mustRun(t, "egress", "suggest", s.name)
	if !strings.HasPrefix(lines, "egress:\n  allow:\n    - denied.test # refused: ") || strings.Contains(lines, "allowed.test") || strings.ContainsAny(lines, "\x1b*\"") {
		t.Errorf("suggested:\n%s", lines)
	}
}

// checkRecord: each change is there before and after it was made, and each that was
// refused.
func (s *steered) checkRecord(t *testing.T) {
	t.Helper()
	var entries []audit.Event
	if err := json.Unmarshal([]byte(s.rig.mustRun(t, "audit", "show", "--json", s.name)), &entries); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range entries {
		if e.Who == nil {
			t.Errorf("nobody asked for %+v", e)
		}
		said = append(said, e.Event+" "+e.Verdict+" "+strings.Join(e.Hosts, " "))
	}
	want := []string{
		"start  allowed.test tcp:allowed.test:8443",
		"egress-allow begin denied.test tcp:denied.test:8443 tcp:evil.test:22", "egress-allow done denied.test tcp:denied.test:8443 tcp:evil.test:22",
		"egress-deny begin denied.test", "egress-deny done denied.test",
		"egress-pause begin ", "egress-pause done ", "egress-resume begin ", "egress-resume done ",
		"egress-pause begin ", "egress-pause done ", "egress-resume begin ", "egress-resume done ",
		"egress-deny deny unknown.test", "egress-allow deny *", "egress-allow deny https://denied.test/", "egress-deny deny allowed.test:443",
	}
	if !slices.Equal(said, want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
	if code, all := s.rig.verifyAudit(t, s.name); code != 0 || !all[0].Complete || all[0].Entries != len(want) {
		t.Errorf("%d, %+v", code, all)
	}
}

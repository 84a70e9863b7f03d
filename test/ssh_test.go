package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carboy/runtime/audit"
	"carboy/test/world"
)

// coder is an agent's manifests: a bottle with an identity, a host that it may
// push to, and one more name of that host whose key is another's.
func coder(engine, key, hostKey, wrongKey, home string) map[string]string {
	return map[string]string{
		"agents/coder.md": "---\nbottle: code\ncommand: [cat]\n---\n",
		"bottles/code.yaml": fmt.Sprintf(`image: %s
proxy: {engine: %s}
git:
  name: A "quoted" \Agent
  email: agent@example.com
  instead-of: {"https://code.test/": "ssh://code%s/"}
ssh:
  - {host: code, hostname: allowed.test, port: %d, user: git, key: %s, known-hosts: [%s]}
  - {host: wrong, hostname: allowed.test, port: %[4]d, user: git, key: %[5]s, known-hosts: [%[7]s]}
`, sshImage, engine, home, sshPort, key, hostKey, wrongKey)}
}

// coding is a bottle in the background that was lent a key.
type coding struct {
	*rig
	server *gitServer
	key    sshKey
	name   string
}

func (c *coding) in(t *testing.T, script string) outcome {
	t.Helper()
	return c.run(t, "exec", c.name, "--", "sh", "-c", script)
}

// TestSSH pushes with git from inside, by a key that is never there.
func TestSSH(t *testing.T) {
	r := newRig(t, 0)
	key := newSSHKey(t, "")
	server := newGitServer(t, r, key)
	r.importImages(t, sshTools(t))
	write(t, "/etc/carboy/keys/deploy", string(key.private), 0o600)
	t.Cleanup(func() { _ = os.RemoveAll("/etc/carboy/keys") })
	for _, engine := range engines(t) {
		manifests(t, coder(engine, "../keys/deploy", server.hostKey.public, newSSHKey(t, "").public, server.home))
		for _, runtime := range runtimes {
			t.Run(runtime+"/"+engine, func(t *testing.T) {
				began := time.Now()
				args := append([]string{"run", "coder", "--yes", "-d", "-i", "--runtime", runtime}, engineFlags(engine)[2:]...)
				c := &coding{rig: r, server: server, key: key, name: strings.TrimSpace(r.mustRun(t, args...))}
				t.Cleanup(func() { _ = r.run(t, "rm", "-f", c.name) })
				c.checkPush(t, runtime+"-"+engine)
				c.checkHosts(t)
				c.checkAgent(t)
				c.checkKeyIsNotInside(t)
				told := r.records(t) + r.mustRun(t, "inspect", c.name)
				checkNowhere(t, r, "while it lives", told, began, []*needle{key.forms()})
				c.checkAudit(t)
				c.kill(t)
				checkNowhere(t, r, "after its end", r.records(t), began, []*needle{key.forms()})
			})
		}
	}
}

func (c *coding) checkPush(t *testing.T, branch string) {
	t.Helper()
	o := c.in(t, `set -e; cd; git clone -q https://code.test/project.git work; cd work; echo hello >file; git add file
		git commit -q -m "from inside"; git push -q origin HEAD:refs/heads/`+branch)
	if o.code != 0 {
		t.Fatalf("push: %v", o)
	}
	if got, want := c.server.log(t, branch), "A \"quoted\" \\Agent <agent@example.com> A \"quoted\" \\Agent: from inside\n"; got != want {
		t.Errorf("pushed %q, want %q", got, want)
	}
}

// checkHosts: the host that was declared, with the key that was declared, and no
// other.
func (c *coding) checkHosts(t *testing.T) {
	t.Helper()
	if o := c.in(t, "ssh code id -un"); o.stdout != "git\n" {
		t.Errorf("control: %v", o)
	}
	if o := c.in(t, "ssh wrong id -un"); o.code != 255 || !strings.Contains(o.stderr, "Host key verification failed") {
		t.Errorf("a wrong host key: %v", o)
	}
	if o := c.in(t, "ssh root@code id -un"); o.code != 255 || !strings.Contains(o.stderr, "agent refused operation") {
		t.Errorf("another user than was declared: %v", o)
	}
	c.Reset()
	const other = "ssh -p 2222 -o StrictHostKeyChecking=no git@denied.test id"
	if o := c.in(t, other); o.code != 255 || !strings.Contains(o.stderr, "the proxy refuses") {
		t.Errorf("a host that is not declared: %v", o)
	}
	if got := c.Arrivals("internet/ssh"); len(got) != 0 {
		t.Errorf("it was reached: %v", got)
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(world.Denied, fmt.Sprint(sshPort)))
	if err != nil {
		t.Fatalf("control: %v", err)
	}
	defer conn.Close()
	banner := make([]byte, 4)
	if _, err := conn.Read(banner); err != nil || string(banner) != "SSH-" {
		t.Errorf("control: %q, %v", banner, err)
	}
}

// checkAgent: the key is listed and signs logins, and that is all.
func (c *coding) checkAgent(t *testing.T) {
	t.Helper()
	if o := c.in(t, "ssh-add -L"); o.stdout != c.key.public+" deploy\n" {
		t.Errorf("listed: %v", o)
	}
	for name, script := range map[string]string{
		"remove":        "ssh-add -D",
		"add":           "ssh-keygen -q -t ed25519 -N '' -f ~/own && ssh-add ~/own",
		"lock":          "printf 'x\\nx\\n' | ssh-add -x",
		"sign a commit": "echo text >~/text && ssh-keygen -Y sign -f /run/carboy/ssh/key-1.pub -n git ~/text",
	} {
		if o := c.in(t, script); o.code == 0 {
			t.Errorf("%s: %v", name, o)
		}
	}
	if o := c.run(t, "exec", "-u", "1234", c.name, "--", "ssh-add", "-L"); o.code == 0 || strings.Contains(o.stdout, "ssh-ed25519") {
		t.Errorf("another user: %v", o)
	}
	if o := c.in(t, "rm -f /run/carboy/ssh/agent.sock; ssh-add -L"); o.stdout != c.key.public+" deploy\n" {
		t.Errorf("the socket can be replaced: %v", o)
	}
}

func (c *coding) checkKeyIsNotInside(t *testing.T) {
	t.Helper()
	search := func(text string) string {
		o := c.run(t, "exec", "-u", "root", c.name, "--", "sh", "-c",
			`find / -path /proc -prune -o -path /sys -prune -o -type f -exec grep -lF -- "$1" {} +; grep -lF -- "$1" /proc/[0-9]*/environ`, "sh", text)
		return strings.Join(strings.Fields(o.stdout), " ")
	}
	public := strings.Fields(c.key.public)[1]
	if found := search(public); !strings.Contains(found, "/run/carboy/ssh/key-1.pub") {
		t.Errorf("control: the public half is not found: %s", found)
	}
	if found := search(c.key.forms().value); found != "" {
		t.Errorf("the private half is in %s", found)
	}
}

func (c *coding) checkAudit(t *testing.T) {
	t.Helper()
	l := live{rig: c.rig, name: c.name}
	path := filepath.Join(filepath.Dir(l.inspect(t).ProxyLog), audit.File)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var e audit.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if e.Event != "ssh-sign" {
			continue // its start
		}
		verdicts[e.Verdict]++
		if e.Verdict == audit.Allow && (e.Host != "code" || e.User != "git" || e.Key != c.key.print) {
			t.Errorf("%s", line)
		}
	}
	// Clone, push and a login; as root, and a commit.
	if verdicts[audit.Allow] != 3 || verdicts[audit.Deny] != 2 {
		t.Errorf("recorded %v:\n%s", verdicts, text)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// kill ends the supervisor. The rig sees that nothing is left.
func (c *coding) kill(t *testing.T) {
	t.Helper()
	process, err := os.FindProcess(c.ls(t)[0].PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gc removes what is left", func() bool { return c.run(t, "gc").code == 0 && len(c.ls(t)) == 0 })
}

// TestGitInWorkspace: a project's repository is used as it is, and also by who is
// not its owner.
func TestGitInWorkspace(t *testing.T) {
	r := newRig(t, 1)
	r.importImages(t, sshTools(t))
	dir := project(t, map[string]string{"README": "hello\n"})
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=Owner", "-c", "user.email=o@example.com", "commit", "-q", "-m", "the owner's"}} {
		hostTool(t, "git", append([]string{"-C", dir}, args...)...)
	}
	manifests(t, map[string]string{
		"agents/coder.md":   "---\nbottle: code\n---\n",
		"bottles/code.yaml": "image: " + sshImage + "\nproxy: {engine: allowlist}\ngit: {name: Agent, email: agent@example.com}\n",
	})
	name := strings.TrimSpace(r.mustRun(t, "run", "coder", "--yes", "-d", "-i", "--runtime", "runc", "--workspace", dir, "--", "cat"))
	t.Cleanup(func() {
		for _, args := range [][]string{{"rm", "-f", name}, {"rm", name}, {"workspace", "prune"}} { // the bottle, its result, the copy
			r.mustRun(t, args...)
		}
	})
	if o := r.run(t, "exec", name, "--", "sh", "-c", "git log -1 --format=%s && git commit -q --allow-empty -m more && git log -1 --format='%an %s'"); o.stdout != "the owner's\nAgent more\n" {
		t.Errorf("as its owner: %v", o)
	}
	const look = "git -C /workspace log -1 --format=%s"
	if o := r.run(t, "exec", "-u", "1234", name, "--", "sh", "-c", look); o.stdout != "more\n" {
		t.Errorf("as another user: %v", o)
	}
	if o := r.run(t, "exec", "-u", "1234", name, "--", "sh", "-c", "GIT_CONFIG_SYSTEM=/dev/null "+look); o.code == 0 || !strings.Contains(o.stderr, "dubious ownership") {
		t.Errorf("control: %v", o)
	}
}

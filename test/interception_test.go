package test

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"carboy/test/world"
)

// pipelock tests run where there is one.
func needPipelock(t *testing.T) {
	t.Helper()
	needRoot(t)
	if shared.pipelock == "" {
		t.Skip("SKIPPED: no pipelock in PATH, nor $PIPELOCK")
	}
}

const hostBundle = "/etc/ssl/certs/ca-certificates.crt"

// trustWorld has the host, and with it the proxy, trust the world's servers
// until the end of the test.
func trustWorld(t *testing.T) {
	t.Helper()
	before, err := os.ReadFile(hostBundle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	write(t, hostBundle, string(before)+"\n"+string(shared.world.CA), 0o644)
	t.Cleanup(func() {
		if before == nil {
			_ = os.Remove(hostBundle)
			return
		}
		write(t, hostBundle, string(before), 0o644)
	})
}

// requests are those that a server has read, also by connections that pipelock
// keeps for the next one.
func requests(r *rig, server string) (n int) {
	for _, a := range r.Arrivals(server) {
		n += len(a.Headers)
	}
	return n
}

// TestAuthority: who has a bottle's authority, and who its key.
func TestAuthority(t *testing.T) {
	onEachRuntime(t, testAuthority)
}

func testAuthority(t *testing.T, r *rig, runtime string) {
	secret, marker := newNeedle(), newNeedle()
	t.Setenv("AGENT_TOKEN", secret.value)
	began := time.Now()
	watching := newWatch(t, r.places(), secret, marker)
	agent := r.start(t, "--proxy", "pipelock", "--proxy-binary", shared.probe, "--runtime", runtime, "-e", "AGENT_TOKEN",
		"--intercept", "allowed.test", "-e", "CURL_CA_BUNDLE=/etc/ca.pem")
	o := agent.exec(t, "sh", "-c", `echo "$CURL_CA_BUNDLE $NODE_EXTRA_CA_CERTS $SSL_CERT_FILE"`)
	if o.stdout != "/etc/ca.pem /run/carboy/ca.pem /run/carboy/ca-bundle.pem\n" {
		t.Errorf("variables, of which one is the user's: %v", o)
	}
	checkStores(t, agent)
	checkKey(t, r, agent, secret, began)
	if log := r.mustRun(t, "logs", "--proxy", agent.name); !strings.Contains(log, "authority, SHA-256 "+agent.inspect(t).Authority) {
		t.Errorf("the log says nothing of %q: %s", agent.inspect(t).Authority, log)
	}
	agent.stop(t)
	checkNowhere(t, r, "after its end", r.records(t), began, []*needle{secret})
	checkSearcher(t, r, watching, marker)
}

// TestAuthorityInAHostileImage: where the list of what the image trusts should be
// is something else, which is not opened, not waited for and leads nowhere.
func TestAuthorityInAHostileImage(t *testing.T) {
	r := newRig(t, 1)
	const list, name = "etc/ssl/certs/ca-certificates.crt", "carboy.test/hostile:latest"
	users := hostTool(t, "cat", "/etc/passwd")
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for i, tt := range []struct {
		what string
		head tar.Header
		runs bool
	}{
		{"link within", link(list, "/etc/group"), true},
		{"link out", link(list, "../../../../../../../etc/passwd"), true},
		{"link to nowhere", link("etc/ssl/certs", "/nowhere"), true},
		{"link to the kernel", link(list, "/proc/1/root/etc/passwd"), true},
		{"loop", link(list, "ca-certificates.crt"), false},
		{"FIFO", tar.Header{Typeflag: tar.TypeFifo, Name: list, Mode: 0o666}, false},
		{"device", tar.Header{Typeflag: tar.TypeBlock, Name: list, Mode: 0o666, Devmajor: 7}, false},
		{"directory", tar.Header{Typeflag: tar.TypeDir, Name: list + "/x/", Mode: 0o777}, false},
	} {
		archive := filepath.Join(t.TempDir(), "image.tar")
		if err := (world.Image{Name: name, Raw: []world.Entry{{Header: tt.head}}}).Write(archive); err != nil {
			t.Fatal(err)
		}
		r.importImage(t, archive)
		kind := runtimes[i%2]
		o := r.run(t, "run", "--yes", "--image", name, "--runtime", kind, "--proxy", "pipelock", "--proxy-binary", shared.probe,
			"--intercept", "allowed.test", "--", "tail", "-n", "1", "/run/carboy/ca-bundle.pem")
		if runs := o.code == 0 && o.stdout == "-----END CERTIFICATE-----\n"; runs != tt.runs || !runs && o.stdout != "" {
			t.Errorf("%s, %s: %v", tt.what, kind, o)
		}
		if now := hostTool(t, "cat", "/etc/passwd"); now != users {
			t.Errorf("%s: the host's users are now %s", tt.what, now)
		}
		r.mustRun(t, "image", "rm", name)
	}
}

// TestInterception: what of it leaves a bottle, and who signs for whom.
func TestInterception(t *testing.T) {
	needPipelock(t)
	trustWorld(t)
	onEachRuntime(t, testInterception)
}

func testInterception(t *testing.T, r *rig, runtime string) {
	secret := newNeedle()
	t.Setenv("AGENT_TOKEN", secret.value)
	flags := append(engineFlags("pipelock"), "--runtime", runtime, "-e", "AGENT_TOKEN",
		"--intercept", "allowed.test", "--intercept", "evil.test", "--allow", "denied.test")
	agent := r.start(t, flags...)
	checkIssuers(t, agent)
	if o := agent.exec(t, "sh", "-c", "env -i PATH=/bin https_proxy=$https_proxy probe http https://allowed.test/"); !strings.Contains(o.stdout, `"ok":true`) {
		t.Errorf("without variables that name the authority: %v", o)
	}
	for _, place := range []struct{ url, server string }{{"http://allowed.test", "internet/http"}, {"https://allowed.test", "internet/https"}} {
		checkLeak(t, r, agent, place.url, place.server, "")
	}
	checkLogged(t, r, agent, secret)
	agent.stop(t)
}

// fetched is the answer to one request of the agent's.
func fetched(t *testing.T, l *live, args ...string) (a attempt, value struct {
	Status int
	Issuer string
	Length int64
}) {
	t.Helper()
	o := l.exec(t, append([]string{"probe", "http"}, args...)...)
	got := attempts(t, o.stdout)
	if len(got) != 1 {
		t.Fatalf("%v: %v", args, o)
	}
	text, err := json.Marshal(got[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return got[0], value
}

func checkIssuers(t *testing.T, agent *live) {
	t.Helper()
	for host, want := range map[string]string{"allowed.test": "carboy bottle " + agent.inspect(t).Instance, "denied.test": "carboy test world"} {
		if a, value := fetched(t, agent, "https://"+host+"/"); !a.OK || value.Issuer != want {
			t.Errorf("%s: %v, issuer %q, want %q", host, a, value.Issuer, want)
		}
	}
	for host, ok := range map[string]bool{"denied.test": true, "allowed.test": false} {
		if a, _ := fetched(t, agent, "-ca", "/etc/ca.pem", "https://"+host+"/"); a.OK != ok {
			t.Errorf("%s with the world's authority alone: %v", host, a)
		}
	}
}

// checkStores: the image's authorities and the bottle's, also for programs that
// look at no variable.
func checkStores(t *testing.T, agent *live) {
	t.Helper()
	bundles := []string{"/etc/ssl/certs/ca-certificates.crt", "/run/carboy/ca-bundle.pem"}
	o := agent.exec(t, append([]string{"grep", "-c", "BEGIN CERTIFICATE", "/run/carboy/ca.pem"}, bundles...)...)
	if want := "/run/carboy/ca.pem:1\n" + strings.Join(bundles, ":2\n") + ":2\n"; o.stdout != want {
		t.Errorf("%v", o)
	}
	own := agent.exec(t, "cat", "/run/carboy/ca.pem").stdout
	for _, bundle := range bundles {
		if text := agent.exec(t, "cat", bundle).stdout; text != string(shared.world.CA)+own {
			t.Errorf("%s is not the image's and the bottle's: %s", bundle, text)
		}
	}
	block, _ := pem.Decode([]byte(own))
	if sum := sha256.Sum256(block.Bytes); agent.inspect(t).Authority != hex.EncodeToString(sum[:]) {
		t.Errorf("inspect says it is %q", agent.inspect(t).Authority)
	}
}

// checkLeak sends the secret in every part of a request, and the same without it.
func checkLeak(t *testing.T, r *rig, agent *live, url, server, warn string) {
	t.Helper()
	for part, send := range map[string]func(text string) []string{
		"URL":        func(text string) []string { return []string{url + "/?q=" + text} },
		"path":       func(text string) []string { return []string{url + "/" + text + "/x"} },
		"header":     func(text string) []string { return []string{"-header", "X-Note:" + text, url + "/"} },
		"user agent": func(text string) []string { return []string{"-header", "User-Agent:" + text, url + "/"} },
		"body": func(text string) []string {
			return []string{"-body", "some words, " + text + ", and others", url + "/"}
		},
	} {
		passes := warn != "" && strings.Contains(warn, part)
		for text, want := range map[string]bool{"harmless": true, "$AGENT_TOKEN": passes} {
			before := requests(r, server)
			o := agent.exec(t, "sh", "-c", `probe http "`+strings.Join(send(text), `" "`)+`"`)
			got := attempts(t, o.stdout)
			if len(got) != 1 || got[0].OK != want || !want && !strings.Contains(got[0].Err, "403") {
				t.Errorf("%s in the %s of %s: %v", text, part, url, o)
			}
			if n := requests(r, server) - before; n != map[bool]int{true: 1}[want] {
				t.Errorf("%s in the %s of %s: %d requests arrived", text, part, url, n)
			}
		}
	}
}

func checkLogged(t *testing.T, r *rig, agent *live, secret *needle) {
	t.Helper()
	log := r.mustRun(t, "logs", "--proxy", agent.name)
	for _, want := range []string{"known secret leak detected", "header_dlp", "Known Secret Leak"} {
		if !strings.Contains(log, want) {
			t.Errorf("the proxy's log says nothing of %q: %s", want, log)
		}
	}
	if holds, _ := secret.in(strings.NewReader(log)); holds {
		t.Errorf("the secret is in the proxy's log: %s", log)
	}
}

// checkKey: the key, and what the engine looks for, are in its container's
// memory, for its user, and nowhere else.
func checkKey(t *testing.T, r *rig, agent *live, secret *needle, began time.Time) {
	t.Helper()
	held := fmt.Sprintf("/proc/%d/root/run/carboy/", agent.inspect(t).PIDs[1])
	text, err := os.ReadFile(held + "ca-key.pem")
	if err != nil {
		t.Fatal(err)
	}
	var where unix.Statfs_t
	if err := unix.Statfs(held, &where); err != nil || where.Type != unix.TMPFS_MAGIC {
		t.Errorf("what the engine holds is on a file system of type %x, %v", where.Type, err)
	}
	known, err := os.ReadFile(held + "secrets")
	if err != nil || string(known) != secret.value+"\n" {
		t.Errorf("known secrets: %d bytes, %v", len(known), err)
	}
	for _, name := range []string{"ca-key.pem", "secrets"} {
		st, err := os.Stat(held + name)
		if err != nil || st.Mode() != 0o400 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	line := strings.Split(string(text), "\n")[2]
	raw, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	key := &needle{value: line, forms: [][]byte{[]byte(line), raw}}
	if found, err := key.inFile(held+"ca-key.pem", began); !found || err != nil {
		t.Fatalf("control: the key is not found where it is, %v", err)
	}
	checkNowhere(t, r, "while it lives", r.records(t)+r.mustRun(t, "inspect", agent.name), began, []*needle{key, secret})
	if o := agent.exec(t, "sh", "-c", "cat /run/carboy/ca-key.pem /run/carboy/secrets"); o.code == 0 || o.stdout != "" {
		t.Errorf("the agent reads %v", o)
	}
}

// TestWarn lets secrets pass where it can, and says so in the log.
func TestWarn(t *testing.T) {
	needPipelock(t)
	trustWorld(t)
	r := newRig(t, 1)
	t.Setenv("AGENT_TOKEN", newNeedle().value)
	manifests(t, map[string]string{
		"agents/warned.md": "---\nbottle: warned\n---\n",
		"bottles/warned.yaml": "image: " + imageName + "\nruntime: runc\nenv: {AGENT_TOKEN: '${AGENT_TOKEN}'}\n" +
			"egress: {dlp: warn, tls: intercept, allow: [allowed.test]}\n",
	})
	agent := r.start(t, append(engineFlags("pipelock"), "warned")...)
	checkLeak(t, r, agent, "https://allowed.test", "internet/https", "header user agent body")
	if log := r.mustRun(t, "logs", "--proxy", agent.name); !strings.Contains(log, "header_dlp") || !strings.Contains(log, "body_dlp") {
		t.Errorf("the log says nothing: %s", log)
	}
	agent.stop(t)
}

// TestInterceptedServerIsVerified: the agent cannot see the server's certificate
// any more, so that the proxy has to.
func TestInterceptedServerIsVerified(t *testing.T) {
	needPipelock(t)
	r := newRig(t, 0)
	agent := r.start(t, append(engineFlags("pipelock"), "--intercept", "allowed.test")...)
	r.Reset()
	a, value := fetched(t, agent, "https://allowed.test/")
	if a.OK || value.Status != 502 || !strings.HasPrefix(value.Issuer, "carboy bottle ") || requests(r, "internet/https") != 0 {
		t.Errorf("%v, %+v, %d requests", a, value, requests(r, "internet/https"))
	}
	agent.stop(t)
}

// TestPipelockLimits: what agents do all day is not too much for it.
func TestPipelockLimits(t *testing.T) {
	needPipelock(t)
	trustWorld(t)
	r := newRig(t, 1)
	agent := r.start(t, append(engineFlags("pipelock"), "--allow", "allowed.test", "--intercept", "denied.test")...)
	for _, tt := range []struct {
		url   string
		bytes int64
		flags []string
	}{
		{"https://allowed.test/bytes/200000000", 200_000_000, nil},
		{"http://allowed.test/bytes/2000000", 2_000_000, nil}, // it scans these
		{"https://denied.test/bytes/2000000", 2_000_000, nil},
		{"http://allowed.test/bytes/100", 100, []string{"-times", "500"}},
		{"https://denied.test/bytes/100", 100, []string{"-times", "500"}},
		{"https://allowed.test/bytes/100", 100, []string{"-times", "500", "-fresh"}},
	} {
		start := time.Now()
		if a, value := fetched(t, agent, append(tt.flags, tt.url)...); !a.OK || value.Length != tt.bytes || time.Since(start) > time.Minute {
			t.Errorf("%s %v: %v, %d bytes in %v", tt.url, tt.flags, a, value.Length, time.Since(start))
		}
		t.Logf("%s %v: %v", tt.url, tt.flags, time.Since(start).Round(time.Millisecond))
	}
	agent.stop(t)
}

// TestLongTunnel keeps one open and silent for longer than pipelock would.
func TestLongTunnel(t *testing.T) {
	if !*soak {
		t.Skip("takes ten minutes: -soak")
	}
	needPipelock(t)
	r := newRig(t, 1)
	const pause = 10*60 + 5
	script := fmt.Sprintf(`(printf 'CONNECT allowed.test:8443 HTTP/1.1\r\nHost: allowed.test:8443\r\n\r\n'; sleep 1; echo first; sleep %d; echo second; sleep 1) | nc 10.66.0.1 8888`, pause)
	args := append(bottle(engineFlags("pipelock")...), "--allow", "tcp:allowed.test:8443", "--", "sh", "-c", script)
	c := r.commandFor(t, pause*time.Second+runTime, args...)
	if o := finish(t, c); !strings.HasSuffix(o.stdout, "first\nsecond\n") {
		t.Errorf("after %d s: %v", pause, o)
	}
}

package test

import (
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"carboy/runtime/provision"
	"carboy/test/world"
)

const agentsImage = "carboy.test/agents:latest"

// The real programs, as npm has them.
var (
	claudeProgram = world.Program{Package: "claude-code-linux-x64-2.1.332", Member: "package/claude", Path: "usr/bin/claude"}
	codexProgram  = world.Program{Package: "codex-0.169.0-linux-x64", Member: "package/vendor/*/bin/codex", Path: "usr/bin/codex"}
)

// TestRealAgents has Claude Code and Codex do a task: they read a file of the
// workspace, change it, and end.
func TestRealAgents(t *testing.T) {
	needRoot(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED: the pinned packages of Claude Code and Codex are for amd64")
	}
	for _, p := range []world.Program{claudeProgram, codexProgram} {
		if ok, err := p.Fetched(); err != nil {
			t.Fatal(err)
		} else if !ok {
			t.Skip("SKIPPED: npm's registry could not be reached for " + p.Package + ": make deps")
		}
	}
	r := newRig(t, len(shared.machines)-1)
	r.importAgents(t)
	manifests(t, map[string]string{
		"agents/painter.md":            "---\nbottle: claude\nprovider: claude\nskills: [brush]\nmodel: opus\n---\nYou are the doorkeeper QUUX.\n",
		"agents/plasterer.md":          "---\nbottle: codex\nprovider: codex\nskills: [brush]\n---\nYou are the doorkeeper QUUX.\n",
		"bottles/claude.yaml":          "image: " + agentsImage + "\negress: {allow: [api.anthropic.com]}\nenv: {NODE_EXTRA_CA_CERTS: /etc/ca.pem}\n",
		"bottles/codex.yaml":           "image: " + agentsImage + "\negress: {allow: [api.openai.com, chatgpt.com]}\nenv: {CODEX_CA_CERTIFICATE: /etc/ca.pem}\n",
		"skills/brush/SKILL.md":        "---\nname: brush\ndescription: Paints doors unmistakably.\n---\nRun the script.\n",
		"skills/brush/scripts/dip.txt": "paint",
	})
	m := &model{file: "/workspace/notes.txt", from: "red", to: "green"}
	// Codex looks at chatgpt.com for plug-ins, and tries for seconds where it may not.
	for _, host := range []string{"api.anthropic.com", "api.openai.com", "chatgpt.com"} {
		r.SetName(host, netip.MustParseAddr(world.Allowed))
		r.Handle(host+"/", m)
	}
	t.Run("conversation", func(t *testing.T) { testConversation(t, r, m) })
	t.Run("account", func(t *testing.T) {
		login, access := chatGPTLogin(t)
		testTask(t, r, m, "plasterer", "CODEX_AUTH_JSON="+login, access, append(engineFlags("allowlist"), "--runtime", "runc")...)
	})
	for _, kind := range []string{"runc", "runsc"} {
		for agent, login := range map[string]string{"painter": "ANTHROPIC_API_KEY", "plasterer": "CODEX_API_KEY"} {
			for _, engine := range engines(t) {
				t.Run(agent+"/"+kind+"/"+engine, func(t *testing.T) {
					testTask(t, r, m, agent, login+"=sk-granted", "sk-granted", append(engineFlags(engine), "--runtime", kind)...)
				})
			}
		}
	}
}

var escapes = regexp.MustCompile(`\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()].|[=>78])`)

// testConversation types a task on a terminal, with no question before it, and
// leaves.
func testConversation(t *testing.T, r *rig, m *model) {
	m.take()
	project := t.TempDir()
	put(t, filepath.Join(project, "notes.txt"), "the door is red\n")
	s := r.openWith(t, []string{"TERM=xterm-256color", "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-granted"},
		"run", "painter", "--yes", "--workspace", project, "--runtime", "runc", "--proxy", "allowlist")
	shows := func(text string) {
		t.Helper()
		bare := strings.NewReplacer(" ", "", "\r", "", "\n", "") // it moves instead of writing blanks
		eventually(t, text+" on the screen", func() bool {
			return strings.Contains(bare.Replace(escapes.ReplaceAllString(s.screen.String(), "")), bare.Replace(text))
		})
	}
	shows("bypass permissions on")
	s.typed(t, "Paint the door green.")
	shows("Paint the door green.")
	s.typed(t, "\r")
	shows(modelSays)
	for range 2 {
		s.typed(t, "\x03")
	}
	s.ends(t)
	if diff := r.mustRun(t, "diff", "--patch", "painter"); !strings.Contains(diff, "+the door is green") {
		t.Errorf("the change: %s", diff)
	}
	r.mustRun(t, "rm", "painter")
}

// importAgents makes an image of the real programs and the C library they want.
func (r *rig) importAgents(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	layer, archive := filepath.Join(dir, "layer.tar"), filepath.Join(dir, "image.tar")
	programs := []world.Program{claudeProgram, codexProgram}
	if err := world.WriteProgramsLayer(layer, programs); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"etc/ca.pem": r.CA}
	addFiles(t, files, cLibrary(t)...)
	image := world.Image{Name: agentsImage, Env: []string{"PATH=/usr/bin:/bin"}, Layer: layer, Files: files}
	if err := image.Write(archive); err != nil {
		t.Fatal(err)
	}
	r.importImage(t, archive)
	t.Cleanup(func() {
		r.mustRun(t, "workspace", "prune")
		r.mustRun(t, "image", "rm", agentsImage)
	})
}

// cLibrary is this machine's, and what was once apart from it.
func cLibrary(t *testing.T) []string {
	t.Helper()
	paths := libraries(t, "/bin/sh")
	for _, name := range []string{"libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6"} {
		paths = append(paths, filepath.Join(filepath.Dir(paths[0]), name))
	}
	return paths
}

const chatGPTAccount = "acc-1"

// chatGPTLogin is what carboy login stores of Codex's auth.json, and the token in
// it that is to arrive.
func chatGPTLogin(t *testing.T) (login, access string) {
	t.Helper()
	claims, err := json.Marshal(object{"exp": time.Now().Add(time.Hour).Unix(), "email": "a@example.com",
		"https://api.openai.com/auth": object{"chatgpt_plan_type": "plus", "chatgpt_account_id": chatGPTAccount}})
	if err != nil {
		t.Fatal(err)
	}
	access = "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
	auth, err := json.Marshal(object{"auth_mode": "chatgpt", "last_refresh": time.Now().Add(-20 * 24 * time.Hour),
		"tokens": object{"id_token": access, "access_token": access, "refresh_token": "rt-precious", "account_id": chatGPTAccount}})
	if err != nil {
		t.Fatal(err)
	}
	stored, _, err := provision.NewChatGPT(auth)
	if err != nil {
		t.Fatal(err)
	}
	return string(stored), access
}

// testTask gives a login, as a variable with its value, of which arrived is to
// arrive.
func testTask(t *testing.T, r *rig, m *model, agent, login, arrived string, flags ...string) {
	m.take()
	project := t.TempDir()
	put(t, filepath.Join(project, "notes.txt"), "the door is red\n")
	args := append([]string{"run", agent, "--workspace", project, "-p", "Paint the door green."}, flags...)
	c := r.command(t, args...)
	c.Env = append(c.Env, login)
	o := finish(t, c)
	if o.code != 0 || !strings.Contains(o.stdout, modelSays) {
		t.Fatalf("the task: %v", o)
	}
	got := m.take()
	if len(got) < 2 {
		t.Fatalf("%d requests, %v", len(got), o)
	}
	for _, want := range []string{"Paint the door green.", "QUUX", "Paints doors unmistakably.", "the door is red"} {
		if !strings.Contains(said(got), want) {
			t.Errorf("the model was not told %q", want)
		}
	}
	for _, request := range got {
		if !strings.HasSuffix(request.key, arrived) {
			t.Errorf("login %q", request.key)
		}
	}
	if diff := r.mustRun(t, "diff", "--patch", agent); !strings.Contains(diff, "+the door is green") {
		t.Errorf("the change: %s", diff)
	}
	if text, err := os.ReadFile(filepath.Join(project, "notes.txt")); err != nil || string(text) != "the door is red\n" {
		t.Errorf("the project: %q, %v", text, err)
	}
	r.mustRun(t, "rm", agent) // the result
}

package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"carboy/runtime/manifest"
)

var serviceBottle = manifest.Bottle{
	Name: "dev", Image: "busybox",
	Env:     map[string]string{"TOKEN": "credential:token", "PLAIN": "a", "HOST": "${HOST_TOKEN}"},
	Secrets: map[string]string{"key": "credential:key.pem"},
}

func TestUnit(t *testing.T) {
	text, err := unit("/opt/50%/bin/carboy", "", manifest.Agent{Name: "rev.iewer", Bottle: "dev", Env: map[string]string{"A": "credential:token"}}, serviceBottle)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Type=notify\n", "ExecStart=/opt/50%%/bin/carboy run --yes --name rev-iewer rev.iewer\n", "ExecStopPost=-/opt/50%%/bin/carboy gc\n",
		"KillMode=mixed\n", "Slice=carboy.slice\n", "After=containerd.service ", "Delegate=yes\n",
		"LogExtraFields=CARBOY_AGENT=rev.iewer\nLogExtraFields=CARBOY_BOTTLE=rev-iewer\n",
		"LoadCredential=key.pem:/etc/carboy/credentials/key.pem\nLoadCredential=token:/etc/carboy/credentials/token\n\n", "# HOST_TOKEN is taken from the environment",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "%i") || strings.Contains(text, "@") {
		t.Errorf("something is left of the template:\n%s", text)
	}
}

func TestUnitRefuses(t *testing.T) {
	for name, env := range map[string]string{"asked for": "? which", "credential": "credential:a\nExecStartPre=/bin/sh", "variable": "${A\nB}"} {
		b := serviceBottle
		b.Env = map[string]string{"X": env}
		if text, err := unit("/bin/carboy", "", manifest.Agent{Name: "a"}, b); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if _, err := unit("/bin/carboy", "no name", manifest.Agent{Name: "a"}, serviceBottle); !errdefs.IsInvalidArgument(err) {
		t.Errorf("name of a bottle: %v", err)
	}
}

// shippedUnits are as make install writes them, with a program that is there, and
// one that was printed.
func shippedUnits(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	program := filepath.Join(dir, "bin/carboy")
	printed, err := unit(program, "", manifest.Agent{Name: "reviewer"}, serviceBottle)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"carboy-reviewer.service": printed}
	for _, name := range []string{"carboy@.service", "carboy-gc.service", "carboy-gc.timer"} {
		text, err := os.ReadFile(filepath.Join("units", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = strings.ReplaceAll(string(text), "@PREFIX@", dir)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestUnitsVerify has systemd read the units.
func TestUnitsVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("SKIPPED: there is no systemd-analyze, of the package systemd")
	}
	dir := shippedUnits(t)
	for _, name := range []string{"carboy@reviewer.service", "carboy-reviewer.service", "carboy-gc.service", "carboy-gc.timer"} {
		if out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", filepath.Join(dir, name)).CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	wrong := filepath.Join(dir, "wrong.service")
	if err := os.WriteFile(wrong, []byte("[Service]\nExecStart="+dir+"/bin/nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", wrong).CombinedOutput(); err == nil {
		t.Errorf("a unit without its program passed:\n%s", out)
	}
}

// ownMounts are directives of systemd.exec(5) that give a service a mount
// namespace, in which containerd would not see what carboy mounts.
var ownMounts = regexp.MustCompile(`(?m)^(Private(Tmp|Devices|Mounts|IPC|Network|Users)|Protect\w+|Read(Only|Write)Paths|InaccessiblePaths|ExecPaths|NoExecPaths|TemporaryFileSystem|Bind\w+|Root\w+|Mount\w+|ExtensionImages|DynamicUser)=`)

func TestUnitsMakeNoMountNamespace(t *testing.T) {
	dir := shippedUnits(t)
	for _, name := range []string{"carboy@.service", "carboy-reviewer.service", "carboy-gc.service"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if found := ownMounts.Find(text); found != nil {
			t.Errorf("%s has %s", name, found)
		}
	}
}

package test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carboy/test/world"
)

const provisionAgent = "---\nbottle: dev\nprovider: generic\nskills: [brush]\ncommand: [sh, -c, 'echo in; cat']\n---\nYou are the doorkeeper.\n"

// TestProvisions: what an agent was granted is there before its command runs,
// as its user's.
func TestProvisions(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		manifests(t, map[string]string{
			"agents/keeper.md": provisionAgent, "bottles/dev.yaml": "image: " + imageName + "\nproxy: {engine: allowlist}\n",
			"skills/brush/SKILL.md": "paint\n", "skills/brush/a/b.txt": "deep\n",
		})
		for _, kind := range []string{"runc", "runsc"} {
			o := r.run(t, "run", "keeper", "--runtime", kind, "-p", "Paint it.", "--", "sh", "-c",
				`cat $CARBOY_PROMPT_FILE $CARBOY_TASK_FILE; cd ~/.agents/skills/brush; cat SKILL.md a/b.txt; stat -c '%u %a %n' . SKILL.md a a/b.txt; touch mine && echo written`)
			want := "You are the doorkeeper.\nPaint it.\npaint\ndeep\n1000 755 .\n1000 644 SKILL.md\n1000 755 a\n1000 644 a/b.txt\nwritten\n"
			if o.code != 0 || o.stdout != want {
				t.Errorf("%s: %v", kind, o)
			}
		}
	})
}

// TestShippedAgents: what is installed with carboy is found and valid, and the
// operator's goes before it.
func TestShippedAgents(t *testing.T) {
	r := newRig(t, 0)
	for _, name := range []string{"claude", "codex"} {
		o := r.run(t, "run", name, "--dry-run")
		if o.code != 0 || !strings.Contains(o.stdout, "/share/carboy/bottles/"+name+"\n") && !strings.Contains(o.stdout, "/share/carboy/bottles/"+name+" (Dockerfile") {
			t.Errorf("%s: %v", name, o)
		}
	}
	manifests(t, map[string]string{"agents/claude.md": "---\nbottle: dev\n---\n", "bottles/dev.yaml": "extends: claude\nimage: " + imageName + "\n"})
	if o := r.run(t, "run", "claude", "--dry-run"); o.code != 0 || !strings.Contains(o.stdout, "api.anthropic.com") || !strings.Contains(o.stdout, imageName) {
		t.Errorf("the operator's: %v", o)
	}
}

// TestProvisionsInAHostileImage: links and devices where something is written
// end the bring-up or are replaced, and lead nowhere.
func TestProvisionsInAHostileImage(t *testing.T) {
	r := newRig(t, 1)
	manifests(t, map[string]string{
		"agents/keeper.md": provisionAgent, "bottles/dev.yaml": "image: carboy.test/hostile:latest\nproxy: {engine: allowlist}\n", "skills/brush/SKILL.md": "paint\n",
	})
	link := func(name, to string) world.Entry {
		return world.Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}}
	}
	users := hostTool(t, "cat", "/etc/passwd")
	const skill = "home/agent/.agents/skills/brush/SKILL.md"
	for what, entry := range map[string]world.Entry{
		"link to a file of the host's": link(skill, "/etc/passwd"),
		"link out":                     link("home/agent/.agents", "../../../../../../../../etc"),
		"absolute link":                link("home/agent/.agents", "/etc"),
		"link to the kernel":           link("home/agent/.agents", "/proc/1/root/etc"),
		"FIFO":                         {Header: tar.Header{Typeflag: tar.TypeFifo, Name: skill, Mode: 0o666}},
		"device":                       {Header: tar.Header{Typeflag: tar.TypeBlock, Name: skill, Mode: 0o666, Devmajor: 7}},
		"directory where a file goes":  {Header: tar.Header{Typeflag: tar.TypeDir, Name: skill + "/x/", Mode: 0o777}},
		"file where a directory goes":  {Header: tar.Header{Typeflag: tar.TypeReg, Name: "home/agent/.agents", Mode: 0o666}},
	} {
		archive := filepath.Join(t.TempDir(), "image.tar")
		if err := (world.Image{Name: "carboy.test/hostile:latest", Raw: []world.Entry{entry}}).Write(archive); err != nil {
			t.Fatal(err)
		}
		r.importImage(t, archive)
		for _, kind := range []string{"runc", "runsc"} {
			o := r.run(t, "run", "keeper", "--yes", "--runtime", kind, "--", "cat", "/"+skill)
			// runsc follows links of the image, within its sandbox.
			if replaced := o.code == 0 && o.stdout == "paint\n"; !replaced && (o.code == 0 || o.stdout != "") {
				t.Errorf("%s, %s: %v", what, kind, o)
			}
		}
		if _, err := os.Lstat("/etc/skills"); err == nil {
			t.Errorf("%s: written on the host", what)
		}
		if now := hostTool(t, "cat", "/etc/passwd"); now != users {
			t.Errorf("%s: the host's users are now %s", what, now)
		}
		r.mustRun(t, "image", "rm", "carboy.test/hostile:latest")
	}
}

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manyFiles fills a directory with small files in directories of 100.
func manyFiles(t testing.TB, dir string, files, size int) {
	t.Helper()
	text := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	for n := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", n/100))
		if n%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%05d", n)), append([]byte(fmt.Sprint(n, "\n")), text...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWorkspaceMany copies many files, and then what changed.
func TestWorkspaceMany(t *testing.T) {
	r := newRig(t, 1)
	dir := t.TempDir()
	const files = 8000
	manyFiles(t, dir, files, 100)
	count := append(bottle("--workspace", dir), "--", "sh", "-c", "find . -type f | wc -l; cat d05?/f05000")
	if o := r.run(t, count...); o.code != 0 || o.stdout != fmt.Sprint(files, "\n5000\n"+strings.Repeat("0123456789abcdef", 7)[:100]) {
		t.Errorf("%v", o)
	}
	put(t, filepath.Join(dir, "d050/f05000"), "new\n")
	if err := os.RemoveAll(filepath.Join(dir, "d000")); err != nil {
		t.Fatal(err)
	}
	if o := r.run(t, count...); o.code != 0 || o.stdout != fmt.Sprint(files-100, "\nnew\n") {
		t.Errorf("after a change: %v", o)
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceDeltas changes a project more often than copies are made of
// changes, with all that is special about layers: deleted and replaced
// directories, and hard links.
func TestWorkspaceDeltas(t *testing.T) {
	r := newRig(t, 0)
	dir := project(t, map[string]string{"one": "1", "x/y/z": "z", "type": "file"})
	link := func(to string) {
		if err := os.Link(filepath.Join(dir, "one"), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("two")
	look := append(bottle("--workspace", dir), "--", "sh", "-c", "find . | sort | tr '\\n' ' '; cat one two type 2>/dev/null; stat -c %h one")
	steps := []struct {
		change func()
		want   string
	}{
		{func() {}, ". ./one ./two ./type ./x ./x/y ./x/y/z 11file2\n"},
		{func() { put(t, filepath.Join(dir, "two"), "both") }, ". ./one ./two ./type ./x ./x/y ./x/y/z bothbothfile2\n"},
		{func() { remove("x"); link("three") }, ". ./one ./three ./two ./type bothbothfile3\n"},
		{func() { remove("type"); put(t, filepath.Join(dir, "type/inner"), "i") }, ". ./one ./three ./two ./type ./type/inner bothboth3\n"},
		{func() { put(t, filepath.Join(dir, "x/new"), "z"); remove("three") }, ". ./one ./two ./type ./type/inner ./x ./x/new bothboth2\n"},
		{func() { remove("two"); put(t, filepath.Join(dir, "two"), "own") }, ". ./one ./two ./type ./type/inner ./x ./x/new bothown1\n"},
	}
	for n := range 6 {
		steps = append(steps, struct {
			change func()
			want   string
		}{func() { put(t, filepath.Join(dir, "one"), fmt.Sprint("n", n)) }, ". ./one ./two ./type ./type/inner ./x ./x/new n" + fmt.Sprint(n) + "own1\n"})
	}
	for n, s := range steps {
		s.change()
		if o := r.run(t, look...); o.code != 0 || o.stdout != s.want {
			t.Errorf("step %d: want %q: %v", n, s.want, o)
		}
	}
	var kept struct{ Copies []struct{ Layers int } }
	if err := json.Unmarshal([]byte(r.mustRun(t, "workspace", "ls", "--json")), &kept); err != nil || len(kept.Copies) != 1 || kept.Copies[0].Layers > 8 {
		t.Errorf("%+v, %v: one copy of a few layers is to be kept", kept, err)
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceKilled ends carboy while it copies. gc leaves nothing but, at
// most, a whole copy.
func TestWorkspaceKilled(t *testing.T) {
	r := newRig(t, 1)
	dir := t.TempDir()
	manyFiles(t, dir, 3000, 4000)
	work := append(bottle("--name", "victim", "--workspace", dir), "--", "sh", "-c", "cat d029/f02999 | wc -c; echo >new")
	kills := 0
	for n := range 8 {
		x := r.follow(t, work...)
		if !x.await("begin workspace") {
			t.Fatalf("%s", x.output.String())
		}
		<-time.After(rand.N(time.Duration(1+n) * 60 * time.Millisecond)) // the moment is the subject
		if x.kill() {
			kills++
		}
		r.sweep(t, "killed in a copy")
		r.mustRun(t, "workspace", "prune")
		if diff, err := r.WaitClean(t.Context(), r.before); diff != "" || err != nil {
			t.Fatalf("after kill %d and gc: %v\n%s", n, err, diff)
		}
	}
	if kills == 0 {
		t.Error("no kill was in time")
	}
	x := r.follow(t, work...)
	if !x.await("begin workspace") {
		t.Fatalf("%s", x.output.String())
	}
	if err := x.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for x.lines.Scan() { // to its end
	}
	_ = x.cmd.Wait()
	if code := x.cmd.ProcessState.ExitCode(); code != 125 {
		t.Errorf("interrupted: exit %d: %s", code, x.output.String())
	}
	if diff, err := r.WaitClean(t.Context(), r.before); diff != "" || err != nil {
		t.Fatalf("after an interrupt: %v\n%s", err, diff)
	}
	if o := r.run(t, work...); o.code != 0 || o.stdout != "4005\n" {
		t.Errorf("afterwards: %v", o)
	}
	r.mustRun(t, "rm", "victim")
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceKilledAgent keeps what the agent of a killed carboy wrote.
func TestWorkspaceKilledAgent(t *testing.T) {
	r := newRig(t, 0)
	l := r.start(t, "--name", "victim", "--workspace", project(t, map[string]string{"a": "1"}))
	if o := l.exec(t, "sh", "-c", "echo work >b"); o.code != 0 {
		t.Error(o)
	}
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l.ended(t)
	r.sweep(t, "killed")
	if got := r.mustRun(t, "diff", "victim"); got != "A b\n" {
		t.Errorf("%q", got)
	}
	// From when it was found dead on it is kept for a week.
	if about := r.ls(t, "-a")[0]; about.State != "killed" || time.Since(about.Ended) > time.Minute {
		t.Errorf("%+v", about)
	}
	// A second one of that name: each is removed for itself.
	r.mustRun(t, append(bottle("--name", "victim", "--workspace", project(t, map[string]string{"a": "1"})), "--", "touch", "c")...)
	for _, want := range []string{"A c\n", "A b\n"} {
		if got := r.mustRun(t, "diff", "victim"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		r.mustRun(t, "rm", "victim")
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceExpires: results are kept for a week after the bottle's end.
func TestWorkspaceExpires(t *testing.T) {
	r := newRig(t, 0)
	dir := project(t, map[string]string{"a": "1"})
	for _, b := range []struct {
		name string
		days time.Duration
	}{{"young", 6}, {"old", 8}} { // a start after the old one would sweep it
		r.mustRun(t, append(bottle("--name", b.name, "--workspace", dir), "--", "touch", "new")...)
		var kept struct{ Results []struct{ Instance string } }
		if err := json.Unmarshal([]byte(r.mustRun(t, "workspace", "ls", "--json")), &kept); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("/var/log/carboy", kept.Results[0].Instance, "record.json")
		about := map[string]any{}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &about); err != nil {
			t.Fatal(err)
		}
		about["ended"] = time.Now().Add(-24 * time.Hour * b.days)
		if text, err = json.Marshal(about); err != nil {
			t.Fatal(err)
		}
		put(t, file, string(text))
	}
	if got := r.mustRun(t, "gc"); got != "removed result old\n" {
		t.Errorf("gc: %q", got)
	}
	r.mustRun(t, "diff", "young")
	if o := r.run(t, "diff", "old"); o.code != 1 {
		t.Errorf("%v", o)
	}
	if got, want := r.mustRun(t, "workspace", "prune", "--results"), "removed copy "+dir+"\nremoved result young\n"; got != want {
		t.Errorf("prune: %q, want %q", got, want)
	}
}

// TestWorkspaceDiskFull copies more than the disk of containerd takes.
func TestWorkspaceDiskFull(t *testing.T) {
	needRoot(t)
	v := shared.machines[1].Version
	v.Name, v.Disk = "small", 48<<20
	c, err := shared.world.Containerd(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, c)
	dir := t.TempDir()
	put(t, filepath.Join(dir, "small"), "fits")
	work := append(bottle("--workspace", dir), "--", "cat", "small")
	if o := r.run(t, work...); o.code != 0 || o.stdout != "fits" {
		t.Errorf("%v", o)
	}
	put(t, filepath.Join(dir, "big"), strings.Repeat("x", 64<<20))
	for range 2 {
		if o := r.run(t, work...); o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "no space left") || !strings.Contains(o.stderr, `"big"`) {
			t.Errorf("%v", o)
		}
	}
	if err := os.Remove(filepath.Join(dir, "big")); err != nil {
		t.Fatal(err)
	}
	if o := r.run(t, work...); o.code != 0 || o.stdout != "fits" {
		t.Errorf("afterwards: %v", o)
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceDiskLimit counts what is written to the workspace.
func TestWorkspaceDiskLimit(t *testing.T) {
	r := newRig(t, 0)
	o := r.run(t, append(bottle("--name", "hog", "--disk", "8MiB", "--workspace", project(t, nil)), "--", "sh", "-c", "head -c 16777216 /dev/zero >big; sleep 60")...)
	if o.code == 0 || !strings.Contains(o.stderr, "--disk") {
		t.Errorf("%v", o)
	}
	r.mustRun(t, "rm", "hog")
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceKilledAtTheEnd loses nothing of the agent's work, wherever in the
// tear-down carboy dies.
func TestWorkspaceKilledAtTheEnd(t *testing.T) {
	r := newRig(t, 1)
	dir := project(t, map[string]string{"a": "1"})
	for _, line := range []string{"end workspace", "begin remove workspace", "end remove workspace", "begin remove lease", "end remove lease"} {
		x := r.follow(t, append(bottle("--name", "victim", "--workspace", dir), "--", "sh", "-c", "echo work >b")...)
		if !x.await(line) || !x.kill() && line != "end remove lease" { // after which it has nothing left to do
			t.Fatalf("%s: not killed: %s", line, x.output.String())
		}
		r.sweep(t, line)
		if line == "end workspace" { // the agent had not begun
			if o := r.run(t, "diff", "victim"); o.code != 1 {
				t.Errorf("%s: %v", line, o)
			}
			continue
		}
		if o := r.run(t, "diff", "victim"); o.stdout != "A b\n" {
			t.Fatalf("%s: %v\nthe run said: %s", line, o, x.output.String())
		}
		r.mustRun(t, "rm", "victim")
	}
	r.mustRun(t, "workspace", "prune")
}

// TestWorkspaceKilledOnLive: what removes the rest of a killed bottle does not
// reach into the live directory that it worked on.
func TestWorkspaceKilledOnLive(t *testing.T) {
	r := newRig(t, 0)
	for _, mode := range []string{"overlay", "bind"} {
		dir := project(t, map[string]string{"a": "1", "d/b": "2", ".git/config": "x"})
		ownedBy(t, dir, 65534)
		flags := []string{"--name", "victim", "--workspace", dir, "--workspace-mode", mode}
		x := r.follow(t, append(bottle(flags...), "--", "true")...)
		if !x.await("end workspace") || !x.kill() {
			t.Fatalf("%s: not killed: %s", mode, x.output.String())
		}
		r.sweep(t, mode)
		l := r.start(t, flags...)
		if o := l.exec(t, "sh", "-c", "echo 3 >d/c"); o.code != 0 {
			t.Error(o)
		}
		if err := l.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		l.ended(t)
		r.sweep(t, mode)
		for _, name := range []string{"a", "d/b", ".git/config"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "d/c")); (err == nil) != (mode == "bind") {
			t.Errorf("%s: what the agent wrote: %v", mode, err)
		}
		if mode == "overlay" {
			if got := r.mustRun(t, "diff", "victim"); got != "A d/c\n" {
				t.Errorf("%q", got)
			}
			r.mustRun(t, "rm", "victim")
		}
	}
}

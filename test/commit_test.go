package test

import (
	"context"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
)

// TestCommit: the image is the bottle's root as it stands, and the bottle goes on.
func TestCommit(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.forget(t)
		const ref = "carboy.test/made:1"
		l := r.start(t, "-u", "root")
		change := "mkdir /home/agent/new && echo text >/home/agent/new/file && ln -s file /home/agent/new/link && chmod 4755 /home/agent/new/file && rm /etc/ca.pem && chown 1000:1000 /home/agent/new"
		if o := l.exec(t, "sh", "-c", change); o.code != 0 {
			t.Fatal(o)
		}
		out := r.mustRun(t, "commit", "-m", "by a test", l.name, ref)
		if !strings.HasPrefix(out, ref+"@sha256:") {
			t.Errorf("%q", out)
		}
		if o := l.exec(t, "echo", "lives"); o.stdout != "lives\n" {
			t.Errorf("the bottle: %v", o)
		}
		l.exec(t, "rm", "-r", "/home/agent/new") // later, and not in the image
		look := "cd /home/agent/new && cat link && stat -c '%a %u %g' file . && ls /etc/ca.pem; readlink link; id -u"
		o := r.run(t, append(bottle("--image", ref, "--pull", "never"), "--", "sh", "-c", look)...)
		if want := "text\n4755 0 0\n755 1000 1000\nfile\n1000\n"; o.stdout != want {
			t.Errorf("in the image: %v", o)
		}
		// Once more, on the same name: the old one is gone.
		again := r.mustRun(t, "commit", l.name, ref)
		if again == out {
			t.Errorf("the same: %q", again)
		}
		if o := r.run(t, append(bottle("--image", ref), "--", "ls", "/home/agent/new")...); o.code == 0 {
			t.Errorf("removed from the second: %v", o)
		}
		l.stop(t)
		r.run(t, "commit", l.name, ref).refused(t, "no bottle named "+l.name)
	})
}

func TestCommitRefuses(t *testing.T) {
	r := newRig(t, 1)
	l := r.start(t, "--runtime", "runsc")
	r.run(t, "commit", l.name, "carboy.test/made:1").refused(t, "runsc", "--runtime runc")
	if o := r.run(t, "commit", l.name); o.code != 2 {
		t.Errorf("without a name: %v", o)
	}
	if o := r.run(t, "commit", l.name, "ghcr.io/luckypipewrench/pipelock:2.3.0"); o.code != 2 || !strings.Contains(o.stderr, "the proxy's image") {
		t.Errorf("the proxy's name: %v", o)
	}
	if o := r.run(t, "commit", l.name, "Not/A/Name"); o.code != 2 {
		t.Errorf("a wrong name: %v", o)
	}
}

// TestPausedIsRemoved: a bottle that a killed commit left paused can be ended.
func TestPausedIsRemoved(t *testing.T) {
	r := newRig(t, 0)
	client, ctx := r.client(t)
	for _, kill := range []bool{false, true} {
		name := r.detach(t, "--", "sleep", "1000")
		pause(ctx, t, client, (&live{rig: r, name: name}).inspect(t).Instance+"-a")
		if kill {
			if err := syscall.Kill(r.ls(t)[0].PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.sweep(t, "paused")
		} else {
			r.mustRun(t, "rm", "-f", name)
		}
		r.checkClean(t)
	}
}

func pause(ctx context.Context, t *testing.T, client *containerd.Client, id string) {
	t.Helper()
	container, err := client.LoadContainer(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Pause(ctx); err != nil {
		t.Fatal(err)
	}
}

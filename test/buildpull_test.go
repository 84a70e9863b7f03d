package test

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A base image that is not here is pulled, by the mirror and with the login
// that a pull would use; one that is here is not asked for.
func TestBuildPulls(t *testing.T) {
	r := newRig(t, 1)
	h := newHub(t)
	h.push(t, "base:1", layered(t, 1, 1<<10))
	h.fail(guarded(`Basic realm="test"`, func(r *http.Request) bool {
		user, password, ok := r.BasicAuth()
		return ok && user == "builder" && password == "right"
	}))
	hosts(t, "registry.test", "server = \"https://registry.test\"\n[host.\""+h.URL+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM registry.test/base:1\nUSER root\nRUN mkdir /out && echo built > /out/a\n"})
	login := func(password string) string {
		path := filepath.Join(t.TempDir(), "config.json")
		write(t, path, withLogin(h.host(), "builder", password), 0o600)
		return path
	}
	if o := r.build(t, dir, "--registry-config", login("wrong")); o.code != 1 || !strings.Contains(o.stderr, "registry.test/base:1") {
		t.Errorf("with a wrong password: %v", o)
	}
	if o := r.build(t, dir, "--registry-config", filepath.Join(t.TempDir(), "none")); o.code != 2 {
		t.Errorf("with a configuration that is not there: %v", o)
	}
	right := login("right")
	r.mustBuild(t, dir, "--registry-config", right)
	if tree, _ := r.built(t); !slices.Equal(tree, []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 built"}) {
		t.Errorf("the image has %q", tree)
	}
	h.fail(nil)
	local := contextOf(t, map[string]string{"Dockerfile": "FROM " + builtName + "\nRUN echo again > /out/b\n"})
	r.mustBuild(t, local)
	if n := h.asked(""); n != 0 {
		t.Errorf("%d requests for an image that is here", n)
	}
	if tree, _ := r.built(t); !slices.Equal(tree, []string{"out/ drwxr-xr-x 0:0", "out/a -rw-r--r-- 0:0 built", "out/b -rw-r--r-- 0:0 again"}) {
		t.Errorf("an image from what was built has %q", tree)
	}
}

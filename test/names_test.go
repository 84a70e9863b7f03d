package test

import (
	"slices"
	"strings"
	"testing"
)

// TestNames: shells and scripts get the names of bottles and images, live ones
// and those that have ended apart.
func TestNames(t *testing.T) {
	r := newRig(t, 0)
	lines := func(args ...string) []string { return strings.Split(strings.TrimSpace(r.mustRun(t, args...)), "\n") }
	offers := func(name string, words ...string) bool {
		return slices.Contains(lines(append([]string{"__completeNoDesc"}, words...)...), name)
	}
	l := r.start(t)
	// A busy host may take more than the time of one answer.
	eventually(t, "the live bottle is offered", func() bool { return offers(l.name, "attach", "") })
	eventually(t, "the image is offered", func() bool { return offers(imageName, "run", "--image", "carboy.test/") })
	if got := lines("ls", "-q"); !slices.Equal(got, []string{l.name}) {
		t.Errorf("ls -q: %q", got)
	}
	if got := lines("ls", "--format", `{{.Name}}\t{{.State}}`); !slices.Equal(got, []string{l.name + "\trunning"}) {
		t.Errorf("ls --format: %q", got)
	}
	if got := lines("stats", l.name, "--no-stream", "--format", "{{.Name}} {{.PIDs}}"); len(got) != 1 || !strings.HasPrefix(got[0], l.name+" ") {
		t.Errorf("stats --format: %q", got)
	}
	l.stop(t)
	if offers(l.name, "attach", "") {
		t.Error("an ended bottle can be attached to")
	}
	if !offers(l.name, "logs", "") {
		t.Error("an ended bottle is not offered for its logs")
	}
	if got := lines("ls", "-aq"); !slices.Contains(got, l.name) {
		t.Errorf("ls -aq: %q", got)
	}
}

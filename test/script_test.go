package test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"carboy/test/world"
)

// TestScript runs carboy as a user without root and without containerd would.
// What needs root in a script stands behind [root].
func TestScript(t *testing.T) {
	bin := filepath.Dir(scriptCarboy(t))
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			e.Setenv("CONTAINERD_ADDRESS", filepath.Join(e.WorkDir, "no.sock"))
			e.Setenv("CARBOY_STATE_DIR", filepath.Join(e.WorkDir, "state"))
			e.Setenv("CARBOY_LOG_DIR", filepath.Join(e.WorkDir, "log"))
			return os.MkdirAll(home, 0o755)
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, errors.New("no such condition")
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits STATUS COMMAND ARG... runs a command that has to end with the status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	status := 0
	var ended *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &ended):
		status = ended.ExitCode()
	case err != nil:
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if status != want {
		ts.Fatalf("%q ended with status %d, want %d", args[1:], status, want)
	}
}

// built is one carboy for all runs of the scripts in this process.
var built struct {
	once sync.Once
	path string
	err  error
}

// scriptCarboy builds carboy, unless the host tests did.
func scriptCarboy(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.path = shared.carboy; built.path != "" {
			return
		}
		dir := t.TempDir() // there is one test that asks
		built.path, built.err = world.Build(context.Background(), dir)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

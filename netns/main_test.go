package netns

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	private "carboy/test/world"
)

var root = flag.Bool("root", false, "run the tests that need root, in namespaces of their own")

// The environment tells a process of this binary what it is.
const (
	insideEnv = "CARBOY_NETNS_INSIDE" // in the tests' own namespaces
	childEnv  = "CARBOY_NETNS_CHILD"  // one bottle, to be killed
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case os.Getenv(childEnv) != "":
		exit(child())
	case !*root || os.Getenv(insideEnv) != "":
		exit(prepare())
		os.Exit(m.Run())
	default:
		exit(enter())
	}
}

func exit(err error) {
	var status *exec.ExitError
	if errors.As(err, &status) {
		os.Exit(status.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(childEnv) != "" || *root && os.Getenv(insideEnv) == "" {
		os.Exit(0)
	}
}

// enter runs the tests again in network and mount namespaces of their own.
func enter() error {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	return c.Run()
}

// prepare gives the tests a /run of their own: state must be on a tmpfs, and
// iptables keeps its lock there.
func prepare() error {
	if !*root {
		return nil
	}
	return unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
}

func needRoot(t testing.TB) {
	t.Helper()
	if !*root {
		t.Skip("needs root: make deps && sudo go test ./netns/... -root")
	}
	for _, program := range []string{"nft", "iptables-nft", "iptables-legacy", "iptables-legacy-save"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal(err)
		}
	}
}

// pluginDirs are the versions under test: Debian's and the pinned one, which
// make deps has built.
func pluginDirs(t testing.TB) []string {
	t.Helper()
	pinned, err := private.PluginDir()
	must(t, err)
	dirs := []string{private.PluginDirDebian, pinned}
	for _, dir := range dirs {
		for _, plugin := range []string{"ptp", "host-local"} {
			if _, err := os.Stat(filepath.Join(dir, plugin)); err != nil {
				t.Fatalf("%v: run make deps", err)
			}
		}
	}
	return dirs
}

// pluginName is what a directory's plugins are called in names of tests.
func pluginName(dir string) string {
	if name := filepath.Base(dir); name != "cni" {
		return name
	}
	return "debian"
}

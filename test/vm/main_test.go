package vm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"carboy/test/world"
)

var virtual = flag.Bool("vm", false, "run the tests that need a virtual machine")

const howto = "needs a virtual machine: sudo make test-vm"

// setUpTime bounds the build, the first boot and the import of an image.
const setUpTime = 12 * time.Minute

// shared is the machine of all tests of a run, and how it is without bottles.
var shared struct {
	*Machine
	before string
}

func TestMain(m *testing.M) {
	flag.Parse()
	if !*virtual {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "carboy-vm-")
	if err == nil {
		err = setUp(dir)
	}
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "FAIL: prepare the machine in %s: %v\n", dir, err)
		os.Exit(1)
	}
	status := m.Run()
	if err := errors.Join(shared.Close(), os.RemoveAll(dir)); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "FAIL:", err)
		status = 1
	}
	os.Exit(status)
}

func setUp(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	deps := os.Getenv("CARBOY_DEPS")
	if deps == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		deps = filepath.Join(cache, "carboy-deps")
	}
	payload := filepath.Join(dir, "payload")
	if err := fill(ctx, payload, filepath.Join(deps, runsc)); err != nil {
		return err
	}
	var err error
	if shared.Machine, err = New(ctx, Config{Deps: filepath.Join(deps, recipe), Payload: payload, Dir: dir}); err != nil {
		return err
	}
	// What the first bottle of a host leaves for good.
	const first = "carboy image import /root/image.tar && carboy run --yes --image carboy.test/busybox:latest --runtime runc --proxy allowlist -- true"
	if _, err := shared.Run(ctx, first); err != nil {
		return errors.Join(err, shared.Close())
	}
	shared.before, err = shared.Run(ctx, inventory)
	return err
}

// fill lays out what the machine gets: carboy as `make install` leaves it, an
// image, the manifests of testdata, and runsc where there is one.
func fill(ctx context.Context, payload, runsc string) error {
	if err := os.CopyFS(payload, os.DirFS("testdata")); err != nil {
		return err
	}
	for _, target := range []string{"build", "install"} {
		c := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", "../..", target, "DESTDIR="+payload, "PREFIX=/usr/local")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("make %s: %w\n%s", target, err, out)
		}
	}
	if err := os.Mkdir(filepath.Join(payload, "root"), 0o700); err != nil {
		return err
	}
	program, err := os.ReadFile(runsc)
	if err == nil {
		err = os.WriteFile(filepath.Join(payload, "usr/local/bin/runsc"), program, 0o755)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return world.Image{}.Write(filepath.Join(payload, "root", "image.tar"))
}

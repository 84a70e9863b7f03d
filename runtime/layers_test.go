package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestManyLayers has more than fit in what the kernel takes by whole paths.
func TestManyLayers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: sudo go test ./runtime")
	}
	base := t.TempDir()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	directory, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, layers := range []int{1, 2, 120} {
		var dirs []string
		for n := range layers {
			dir := filepath.Join(base, fmt.Sprint(layers), "a-long-name-of-a-directory-in-the-middle", fmt.Sprint(n), "fs")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"all", fmt.Sprint("only", n)} {
				if err := os.WriteFile(filepath.Join(dir, name), fmt.Append(nil, n), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			dirs = append(dirs, dir)
		}
		top, err := openLayers(dirs)
		if err != nil {
			t.Errorf("%d layers: %v", layers, err)
			continue
		}
		for name, want := range map[string]string{"all": "0", fmt.Sprint("only", layers-1): fmt.Sprint(layers - 1)} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", top.Fd(), name))
			if err != nil || string(text) != want {
				t.Errorf("%d layers: %s is %q, want %q: %v", layers, name, text, want, err)
			}
		}
		if err := top.Close(); err != nil {
			t.Error(err)
		}
	}
	if now, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(now) != string(mounts) {
		t.Errorf("mounts changed: %v\n%s", err, now)
	}
	if now, err := os.Getwd(); err != nil || now != directory {
		t.Errorf("the working directory changed: %s, %v", now, err)
	}
}

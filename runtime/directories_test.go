package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDirectoriesThatOthersCanChange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: sudo go test ./runtime")
	}
	top := t.TempDir()
	dir := func(name string, uid, gid int, mode os.FileMode) string {
		path := filepath.Join(top, name)
		for _, err := range []error{os.MkdirAll(path, 0o755), os.Chmod(path, mode), os.Chown(path, uid, gid)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	link := func(name, target string, uid int) string {
		path := filepath.Join(top, name)
		for _, err := range []error{os.Symlink(target, path), os.Lchown(path, uid, uid)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	mine, theirs := dir("mine", 0, 0, 0o755), dir("theirs", 1000, 1000, 0o755)
	file := filepath.Join(mine, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		mine:                                     "",
		filepath.Join(mine, "not", "there"):      "",
		link("to-mine", mine, 0):                 "",
		dir("syslog", 0, 4, 0o775):               "", // as /var/log is on Ubuntu
		dir("sticky", 0, 0, 0o777|os.ModeSticky): "",
		theirs:                                   theirs + " belongs to user 1000",
		filepath.Join(theirs, "not", "there"):    theirs + " belongs to user 1000",
		link("to-theirs", theirs, 0):             theirs + " belongs to user 1000",
		link("planted", mine, 1000):              "planted belongs to user 1000",
		dir("open", 0, 0, 0o777):                 "can be written by others",
		dir("group", 0, 1000, 0o775):             "can be written by others",
		file:                                     "is not a directory",
		link("nowhere", top+"/absent", 0):        "no such file",
	} {
		err := checkOwned("state-dir", path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

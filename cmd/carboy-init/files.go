package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"carboy/runtime/initproto"
)

// writeFile puts a file below root. The image is hostile: links that lead out
// are refused, and whatever stands at the path, a FIFO or a device included,
// is replaced and never opened.
func writeFile(rootDir string, f initproto.File) error {
	who, err := lookupUser(rootDir, f.Owner)
	if err != nil {
		return err
	}
	if below, ok := strings.CutPrefix(f.Path, "~/"); ok {
		f.Path = path.Join(who.home, below)
	}
	name := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
	if name == "" {
		return errors.New("no file name")
	}
	root, err := os.OpenRoot(rootDir)
	if err != nil {
		return err
	}
	defer root.Close()
	if f.Append {
		if name = follow(rootDir, name); !isDir(root, path.Dir(name)) {
			return nil
		}
		f.After = []string{name}
	}
	if f.Data, err = combined(root, rootDir, name, f); err != nil {
		return err
	}
	if err := checkPlace(root, name); err != nil {
		return err
	}
	if err := makeParents(root, path.Dir(name), who); err != nil {
		return err
	}
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return create(root, name, f, who)
}

// combined is what a file is to hold, where it depends on what is there.
func combined(root *os.Root, rootDir, name string, f initproto.File) ([]byte, error) {
	if f.Merge {
		return merged(root, name, f.Data)
	}
	for _, before := range f.After {
		there, err := readBundle(root, follow(rootDir, before))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(there) > 0 && !bytes.HasSuffix(there, []byte("\n")) {
			there = append(there, '\n')
		}
		return append(there, f.Data...), nil
	}
	return f.Data, nil
}

// follow is where the links of a path lead to, which is below root whatever
// they say. Nothing of the image runs that could change them meanwhile.
func follow(rootDir, name string) string {
	full, err := securejoin.SecureJoin(rootDir, name)
	if err != nil {
		return name // too many links: what opens it says so
	}
	return strings.TrimPrefix(strings.TrimPrefix(full, path.Clean(rootDir)), "/")
}

func isDir(root *os.Root, name string) bool {
	st, err := root.Lstat(name)
	return err == nil && st.IsDir()
}

// readBundle reads a file whose loss would be felt: one that cannot be read, or is
// none, is an error.
func readBundle(root *os.Root, name string) ([]byte, error) {
	const limit = 4 << 20
	st, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("/%s of the image is no file of at most %d bytes", name, limit)
	}
	return readRegular(root, name, limit)
}

// checkPlace: what goes below /run is in memory, and all else in the image's own
// files, whatever was mounted where a link of the image leads.
func checkPlace(root *os.Root, name string) error {
	dir, err := nearest(root, path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	if strings.HasPrefix(name, "run/") {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
			return errors.Join(fmt.Errorf("/%s would not be in memory: the image has something else in place of /run", name), err)
		}
		return nil
	}
	var here, top unix.Stat_t
	whole, err := root.Open(".")
	if err != nil {
		return err
	}
	defer whole.Close()
	if err := errors.Join(unix.Fstat(int(dir.Fd()), &here), unix.Fstat(int(whole.Fd()), &top)); err != nil {
		return err
	}
	if here.Dev != top.Dev {
		return fmt.Errorf("/%s would be in what is mounted there: nothing is written to files of the host", name)
	}
	return nil
}

// nearest opens the first directory upwards that is there.
func nearest(root *os.Root, dir string) (*os.File, error) {
	for {
		f, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
		if !errors.Is(err, fs.ErrNotExist) || dir == "." {
			return f, err
		}
		dir = path.Dir(dir)
	}
}

// makeParents makes what is missing of dir.
func makeParents(root *os.Root, dir string, who identity) error {
	home := strings.Trim(path.Clean(who.home), "/")
	var at string
	for part := range strings.SplitSeq(dir, "/") {
		at = path.Join(at, part)
		err := root.Mkdir(at, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if home == "" || at != home && !strings.HasPrefix(at, home+"/") {
			continue
		}
		if err := root.Lchown(at, int(who.uid), int(who.gid)); err != nil {
			return err
		}
	}
	return nil
}

func create(root *os.Root, name string, f initproto.File, who identity) (err error) {
	if f.Link != "" {
		return errors.Join(root.Symlink(f.Link, name), root.Lchown(name, int(who.uid), int(who.gid)))
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Chown(int(who.uid), int(who.gid)); err != nil {
		return err
	}
	if err := file.Chmod(fs.FileMode(f.Mode) & fs.ModePerm); err != nil {
		return err
	}
	_, err = file.Write(f.Data)
	return err
}

// merged puts data's members into the object that stands at name. What is no
// object of a usual size is replaced.
func merged(root *os.Root, name string, data []byte) ([]byte, error) {
	var over map[string]any
	if err := json.Unmarshal(data, &over); err != nil {
		return nil, err
	}
	there, err := readSmall(root, name)
	if err != nil {
		return nil, err
	}
	object := map[string]any{}
	if json.Valid(there) && bytes.HasPrefix(bytes.TrimSpace(there), []byte("{")) {
		if err := json.Unmarshal(there, &object); err != nil {
			return nil, err
		}
	}
	mergeInto(object, over)
	return json.MarshalIndent(object, "", "  ")
}

func mergeInto(object, over map[string]any) {
	for key, value := range over {
		inner, isObject := value.(map[string]any)
		if there, ok := object[key].(map[string]any); ok && isObject {
			mergeInto(there, inner)
			continue
		}
		object[key] = value
	}
}

// readSmall never waits: the image may hold a FIFO or a device by that name,
// and it follows no link. What is not a regular file of at most 1 MiB reads as
// empty.
func readSmall(root *os.Root, name string) ([]byte, error) {
	const limit = 1 << 20
	st, err := root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return nil, nil //nolint:nilerr // makeParents and create tell what is wrong with the path
	}
	return readRegular(root, name, limit)
}

func readRegular(root *os.Root, name string, limit int64) ([]byte, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

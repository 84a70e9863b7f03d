package buildproto

import (
	"fmt"
	"io/fs"
	"path/filepath"
)

// Locate finds the context and the Dockerfile. stat has the rights of who asks.
func (b Build) Locate(stat func(path string) (fs.FileInfo, error)) (dir, file string, err error) {
	if dir, err = filepath.Abs(b.Context); err != nil {
		return "", "", err
	}
	if st, err := stat(dir); err != nil || !st.IsDir() {
		if err == nil {
			err = fmt.Errorf("%s is not a directory", b.Context)
		}
		return "", "", fmt.Errorf("build context: %w", err)
	}
	file = filepath.Join(dir, "Dockerfile")
	if b.File != "" {
		if file, err = filepath.Abs(b.File); err != nil {
			return "", "", err
		}
	}
	st, err := stat(file)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", file)
	}
	if err != nil {
		return "", "", fmt.Errorf("the Dockerfile: %w: name it with -f, or as dockerfile of a manifest's build", err)
	}
	return dir, file, nil
}

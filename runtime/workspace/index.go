// Package workspace copies a project directory to where an agent works on it:
// as the user who asks, without following a link, and only what has changed
// since the last copy. It knows directories, and nothing of containers.
package workspace

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Index is what a tree looked like when it was copied, by directories in the
// order of their paths. The first is the tree's own, with an empty path.
type Index struct {
	Root        Entry
	Directories []Directory
}

// Directory is the entries of one, in the order of their names.
type Directory struct {
	Path    string
	Entries []Entry
}

// Entry is a file, link or directory. A Mode of zero is one that vanished.
type Entry struct {
	Name         string
	Mode         uint32 // as stat(2) has it
	Size         int64
	Mtime, Ctime int64 // in ns
	Dev, Ino     uint64
	Nlink        uint64
}

func newEntry(name string, st *unix.Stat_t) Entry {
	return Entry{Name: name, Mode: st.Mode, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Dev: st.Dev, Ino: st.Ino, Nlink: uint64(st.Nlink)} //nolint:unconvert // narrower on arm64
}

func (e Entry) kind() uint32 { return e.Mode & unix.S_IFMT }

func (e Entry) isDir() bool { return e.kind() == unix.S_IFDIR }

// linked says whether the file may have another name.
func (e Entry) linked() bool { return e.kind() == unix.S_IFREG && e.Nlink > 1 }

// same says that nothing happened to a file between two looks.
func (e Entry) same(o Entry) bool {
	same := e.Mode == o.Mode && e.Mtime == o.Mtime && e.Ctime == o.Ctime && e.Dev == o.Dev && e.Ino == o.Ino
	return same && (e.isDir() || e.Size == o.Size)
}

const (
	indexMagic = "carboy index 1\n"
	// tick is how much later than a change its file's times may still be set to
	// the same: the clock of files ticks as the scheduler's.
	tick = 20 * time.Millisecond
)

// Write writes the index. A file that changed as late as the copy began could
// change once more and look the same, so it is to be copied again.
func (x Index) Write(w io.Writer, began time.Time) error {
	b := bufio.NewWriterSize(w, 1<<16)
	line := append([]byte(nil), indexMagic...)
	late := began.Add(-tick).UnixNano()
	entry := func(e Entry) {
		if e.Ctime >= late {
			e.Ctime = 0
		}
		line = appendEntry(line, e)
	}
	entry(x.Root)
	for _, d := range x.Directories {
		line = binary.AppendUvarint(line, uint64(len(d.Path)+1))
		line = append(line, d.Path...)
		for _, e := range d.Entries {
			if e.Mode != 0 {
				entry(e)
			}
			if _, err := b.Write(line); err != nil {
				return err
			}
			line = line[:0]
		}
		line = binary.AppendUvarint(line, 0) // no name: the end of the directory
	}
	line = binary.AppendUvarint(line, 0)
	if _, err := b.Write(line); err != nil {
		return err
	}
	return b.Flush()
}

func appendEntry(line []byte, e Entry) []byte {
	line = binary.AppendUvarint(line, uint64(len(e.Name)+1))
	line = append(line, e.Name...)
	for _, n := range []uint64{uint64(e.Mode), uint64(e.Size), uint64(e.Mtime), uint64(e.Ctime), e.Dev, e.Ino, e.Nlink} {
		line = binary.AppendUvarint(line, n)
	}
	return line
}

var errIndex = errors.New("not an index")

// ReadIndex reads what Write wrote.
func ReadIndex(b []byte) (x Index, err error) {
	if len(b) < len(indexMagic) || string(b[:len(indexMagic)]) != indexMagic {
		return x, errIndex
	}
	r := indexReader{b: b[len(indexMagic):]}
	x.Root, _ = r.entry()
	for {
		path, more := r.text()
		if !more {
			return x, r.err
		}
		d := Directory{Path: path}
		for e, more := r.entry(); more; e, more = r.entry() {
			d.Entries = append(d.Entries, e)
		}
		x.Directories = append(x.Directories, d)
	}
}

type indexReader struct {
	b   []byte
	err error
}

func (r *indexReader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.b, r.err = nil, fmt.Errorf("%w: it ends early", errIndex)
		return 0
	}
	r.b = r.b[size:]
	return n
}

// text is a length that is one more, so that zero is none, and the bytes.
func (r *indexReader) text() (string, bool) {
	n := r.number()
	if n == 0 {
		return "", false
	}
	if n-1 > uint64(len(r.b)) {
		r.b, r.err = nil, fmt.Errorf("%w: it ends early", errIndex)
		return "", false
	}
	s := string(r.b[:n-1])
	r.b = r.b[n-1:]
	return s, true
}

func (r *indexReader) entry() (e Entry, more bool) {
	if e.Name, more = r.text(); !more {
		return e, false
	}
	e.Mode, e.Size, e.Mtime, e.Ctime = uint32(r.number()), int64(r.number()), int64(r.number()), int64(r.number())
	e.Dev, e.Ino, e.Nlink = r.number(), r.number(), r.number()
	return e, r.err == nil
}

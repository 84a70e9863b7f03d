package changes

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
)

// largest is the size of a file that is shown, in bytes.
const largest = 4 << 20

// Patch writes a unified diff of text files, and a line about every other
// change.
func (s Sides) Patch(ctx context.Context, w io.Writer) error {
	if s.Upper == nil {
		return nil
	}
	upper := s.upper()
	defer upper.in.Forget()
	return s.reading(func(before reader) error {
		return s.Walk(ctx, func(c Change) error { return writePatch(w, before, upper, c) })
	})
}

func writePatch(w io.Writer, before, upper reader, c Change) error {
	if c.Type == "directory" {
		return nil // patches have none
	}
	var was, now []byte
	text, err := true, error(nil)
	if c.Kind != Added {
		was, text, err = content(before, c)
	}
	if c.Kind != Deleted && text && err == nil {
		now, text, err = content(upper, c)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(onePatch(c, was, now, text))
	return err
}

// content reads a text file, of which text says that it is one.
func content(d reader, c Change) (b []byte, text bool, err error) {
	if c.Type != "file" {
		return nil, false, nil
	}
	f, err := d.openFile(c.Path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	b, err = io.ReadAll(io.LimitReader(f, largest+1))
	return b, len(b) <= largest && utf8.Valid(b) && bytes.IndexByte(b, 0) < 0, err
}

func onePatch(c Change, was, now []byte, text bool) []byte {
	from, to := quoteName("a/"+c.Path), quoteName("b/"+c.Path)
	head := "diff --git " + from + " " + to + "\n"
	const missing = "/dev/null"
	switch c.Kind {
	case Added:
		head += fmt.Sprintf("new file mode 100%03o\n", c.Mode&0o777)
		from = missing
	case Deleted:
		head += fmt.Sprintf("deleted file mode 100%03o\n", c.Mode&0o777)
		to = missing
	}
	if !text {
		return []byte(head + "Binary files " + from + " and " + to + " differ\n")
	}
	body := diff.Diff(from, was, to, now)
	// Its first line is the command that would make it.
	if i := bytes.IndexByte(body, '\n'); i >= 0 {
		body = body[i+1:]
	}
	return append([]byte(head), body...)
}

// quoteName quotes as git does, in octal, so that one name stays on one line.
func quoteName(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

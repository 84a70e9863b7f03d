package output

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Line is one of a log. Text has no newline; Partial says that it goes on in the
// stream's next line.
type Line struct {
	Time    time.Time
	Stream  Stream
	Partial bool
	Text    []byte
}

// Query chooses lines of a log.
type Query struct {
	Tail  int       // the last lines only; negative is all
	Since time.Time // zero is all
	// Follow waits for more until Ended says that no more will come.
	Follow bool
	Ended  func() bool
}

// Read gives the lines of the agent's log in dir to emit, oldest first. A log
// that was never written is empty.
func Read(ctx context.Context, dir string, q Query, emit func(Line) error) error {
	return read(ctx, dir, reader{name: "agent", parse: parseLine, q: q, emit: emit})
}

// ReadProxy is Read for the log of a proxy engine, JSON lines that have their
// time as "time" or "timestamp".
func ReadProxy(ctx context.Context, dir string, q Query, emit func(Line) error) error {
	return read(ctx, dir, reader{name: "proxy", parse: parseProxy, q: q, emit: emit})
}

func read(ctx context.Context, dir string, r reader) error {
	files, err := r.files(dir)
	if err != nil {
		return err
	}
	if r.q.Tail >= 0 {
		if r.skip, err = r.countBeyond(files); err != nil {
			return err
		}
	}
	for _, name := range files {
		if err := r.file(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// files are the older ones and then the present one. Their names hold the times
// of their ends.
func (r *reader) files(dir string) ([]string, error) {
	older, err := filepath.Glob(filepath.Join(dir, r.name+"-*.log"))
	if err != nil {
		return nil, err
	}
	slices.Sort(older)
	return append(older, filepath.Join(dir, r.name+".log")), nil
}

// countBeyond counts the lines before the last ones.
func (r *reader) countBeyond(files []string) (int, error) {
	all := 0
	for _, name := range files {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		lines := bufio.NewReaderSize(f, bufferSize)
		for {
			line, _, err := r.readLine(lines)
			if err != nil {
				break // the reading itself tells
			}
			if !line.Partial && !line.Time.Before(r.q.Since) {
				all++
			}
		}
		_ = f.Close()
	}
	return max(all-r.q.Tail, 0), nil
}

const bufferSize = 64 << 10

type reader struct {
	name  string // of the log
	parse func(text []byte) (Line, error)
	q     Query
	skip  int
	emit  func(Line) error
}

// file reads one file to its end, which for the present one that is followed
// comes when it was replaced or the bottle has ended.
func (r *reader) file(ctx context.Context, name string) error {
	f, err := r.open(ctx, name)
	if f == nil || err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewReaderSize(f, bufferSize)
	for {
		line, rest, err := r.readLine(lines)
		switch {
		case err == nil:
			if err := r.pass(line); err != nil {
				return err
			}
			continue
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("log %s: %w", name, err)
		case !r.q.Follow:
			return nil
		}
		ended := r.q.Ended() // before the look: what was written until then is read
		if more, err := r.await(ctx, f, name, ended); err != nil || !more {
			return err
		}
		lines = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(rest), f), bufferSize)
	}
}

// open waits for a log that is followed and not there yet.
func (r *reader) open(ctx context.Context, name string) (*os.File, error) {
	for {
		f, err := os.Open(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		if !r.q.Follow || filepath.Base(name) != r.name+".log" || r.q.Ended() {
			return nil, nil
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// await says whether a file may have more.
func (r *reader) await(ctx context.Context, f *os.File, name string, ended bool) (bool, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, err
	}
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() > at {
		return true, nil
	}
	now, err := os.Stat(name)
	if err == nil && !os.SameFile(st, now) {
		return false, r.file(ctx, name) // it was replaced: go on with the new one
	}
	if ended || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return true, pause(ctx)
}

// pause is a moment between two looks at a file.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

func (r *reader) pass(l Line) error {
	if l.Time.Before(r.q.Since) {
		return nil
	}
	if r.skip > 0 {
		if !l.Partial {
			r.skip--
		}
		return nil
	}
	return r.emit(l)
}

// readLine returns what it read of a line that is cut off, with io.EOF.
func (r *reader) readLine(from *bufio.Reader) (Line, []byte, error) {
	text, err := from.ReadBytes('\n')
	if err != nil {
		return Line{}, text, err
	}
	line, err := r.parse(text[:len(text)-1])
	return line, nil, err
}

func parseLine(text []byte) (Line, error) {
	fields := bytes.SplitN(text, []byte{' '}, 4)
	if len(fields) != 4 {
		return Line{}, fmt.Errorf("no log line: %q", text)
	}
	at, err := time.Parse(timeFormat, string(fields[0]))
	if err != nil {
		return Line{}, err
	}
	return Line{Time: at, Stream: Stream(fields[1]), Partial: string(fields[2]) == "P", Text: fields[3]}, nil
}

// parseProxy takes a line that is not JSON as it is.
func parseProxy(text []byte) (Line, error) {
	var at struct{ Time, Timestamp time.Time }
	_ = json.Unmarshal(text, &at)
	if at.Time.IsZero() {
		at.Time = at.Timestamp
	}
	return Line{Time: at.Time, Stream: Stdout, Text: text}, nil
}

package output

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// A log is a file and older ones, each of fileSize MiB.
const (
	fileName = "agent.log"
	fileSize = 64
	maxFiles = 16 // 1 GiB in all
)

// Log is the log of one bottle, in the format of the Kubernetes container
// runtime interface: a line is `TIME STREAM TAG TEXT`, and the tag P, instead of
// F, says that the text goes on in the stream's next line.
type Log struct {
	warn func(error)

	mu      sync.Mutex
	file    lumberjack.Logger
	size    int64
	files   int
	failing bool
	buf     []byte
}

// NewLog writes to a directory, which is made when there is something to write.
// A file that cannot be written is told to warn, once while it lasts: a full
// disk must not stop the agent.
func NewLog(dir string, warn func(error)) *Log {
	return &Log{warn: warn, files: 1,
		file: lumberjack.Logger{Filename: filepath.Join(dir, fileName), MaxSize: 2 * fileSize, MaxBackups: maxFiles - 1}}
}

func (l *Log) write(s Stream, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head := fmt.Appendf(nil, "%s %s ", time.Now().UTC().Format(timeFormat), s)
	l.buf = l.buf[:0]
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		tag := "P "
		if whole {
			tag = "F "
		}
		l.buf = append(append(append(append(l.buf, head...), tag...), line...), '\n')
		p = rest
	}
	err := l.put()
	if err != nil && !l.failing {
		l.warn(fmt.Errorf("the agent's log is not complete: %w", err))
	}
	l.failing = err != nil
}

// timeFormat has a fixed width, so that times compare as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// put writes the buffer, to a new file when this one is full.
func (l *Log) put() error {
	if l.size+int64(len(l.buf)) > fileSize<<20 {
		if err := l.file.Rotate(); err != nil {
			return err
		}
		l.size = 0
		if l.files++; l.files > maxFiles {
			l.buf = append(fmt.Appendf(nil, "%s %s F older output was dropped: a log holds %d MiB\n",
				time.Now().UTC().Format(timeFormat), Note, fileSize*maxFiles), l.buf...)
		}
	}
	n, err := l.file.Write(l.buf)
	l.size += int64(n)
	return err
}

func (l *Log) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

package runtime

import (
	"encoding/json"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

const proxyLogFile = "proxy.log"

// proxyLogSize is of one of two files, in MiB.
const proxyLogSize = 8

// proxyLog keeps what a proxy engine writes, in a file and its end in memory. A
// file that cannot be written is told once: the engine must not stop for it.
type proxyLog struct {
	tail tail
	file lumberjack.Logger
	warn func(error)
	once sync.Once
}

func (l *proxyLog) Write(p []byte) (int, error) {
	_, _ = l.tail.Write(p) // in memory
	if _, err := l.file.Write(p); err != nil {
		l.once.Do(func() { l.warn(err) })
	}
	return len(p), nil
}

// note adds a line of carboy's own, in the manner of the engines' lines.
func (l *proxyLog) note(message string) {
	line, _ := json.Marshal(map[string]any{"time": time.Now().UTC(), "event": "carboy", "reason": message}) // plain values
	_, _ = l.Write(append(line, '\n'))                                                                      // it never fails
}

func (l *proxyLog) Close() error { return l.file.Close() }

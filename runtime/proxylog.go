package runtime

import (
	"encoding/json"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"carboy/runtime/initproto"
	"carboy/runtime/veil"
)

const proxyLogFile = "proxy.log"

// proxyLogSize is of one of two files, in MiB.
const proxyLogSize = 8

// proxyLog keeps what a proxy engine writes, in a file and its end in memory,
// without the bottle's secrets: an engine logs what it was asked for. A file that
// cannot be written is told once: the engine must not stop for it.
type proxyLog struct {
	tail    tail
	file    lumberjack.Logger
	veil    *veil.Veil
	streams []*veil.Lines
	each    func(line []byte) // nil: nobody hears all
	warn    func(error)
	once    sync.Once

	mu    sync.Mutex
	heard func(line []byte) // nil: nobody listens
}

// hear passes lines to f as well, until stop.
func (l *proxyLog) hear(f func(line []byte)) (stop func()) {
	set := func(f func(line []byte)) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.heard = f
	}
	set(f)
	return func() { set(nil) }
}

func (l *proxyLog) tell(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard != nil {
		l.heard(line)
	}
}

func (l *proxyLog) write(line []byte) {
	_, _ = l.tail.Write(line) // in memory
	l.tell(line)
	if l.each != nil {
		l.each(line)
	}
	if _, err := l.file.Write(line); err != nil {
		l.once.Do(func() { l.warn(err) })
	}
}

// engineStreams are for an engine that starts; the one before has ended.
func (l *proxyLog) engineStreams() initproto.Streams {
	l.flush()
	l.streams = []*veil.Lines{l.veil.Lines(l.write), l.veil.Lines(l.write)}
	return initproto.Streams{Stdout: l.streams[0], Stderr: l.streams[1]}
}

// flush is for the end of an engine, whose last line may have no end.
func (l *proxyLog) flush() {
	for _, s := range l.streams {
		s.Flush()
	}
}

// note adds a line of carboy's own, in the manner of the engines' lines.
func (l *proxyLog) note(message string) {
	line, _ := json.Marshal(map[string]any{"time": time.Now().UTC(), "event": "carboy", "reason": message}) // plain values
	l.write(l.veil.Hide(append(line, '\n')))
}

func (l *proxyLog) Close() error {
	l.flush()
	return l.file.Close()
}

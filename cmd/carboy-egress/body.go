package main

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// patient is a request's body, for which a client may take long but not stand
// still.
type patient struct {
	io.ReadCloser
	rc   *http.ResponseController
	idle time.Duration

	mu       sync.Mutex
	finished bool // the connection's deadlines are the next request's
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.wait(); err != nil {
		return 0, err
	}
	n, err := p.ReadCloser.Read(b)
	if err == io.EOF { // the server goes on reading, to see the client leave
		_ = p.deadline(time.Time{}) // a closed connection tells at its next use
	}
	return n, err
}

// open lets an answer begin before the body has ended: else the server would
// cut the body there. Nobody reads the body of a request that is refused, but
// the server drains it, hence the deadline.
func (p *patient) open() error {
	return errors.Join(p.rc.EnableFullDuplex(), p.wait())
}

// wait gives the client its time, from now.
func (p *patient) wait() error { return p.deadline(time.Now().Add(p.idle)) }

func (p *patient) deadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return http.ErrBodyReadAfterClose
	}
	return p.rc.SetReadDeadline(t)
}

// finish is the end of the request. The transport may read on after it.
func (p *patient) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
}

// watched is an answer's body.
type watched struct {
	io.ReadCloser
	x *exchange
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		w.x.broken = err
	}
	return n, err
}

// prompt sends what it has: some answers are streams.
type prompt struct{ http.ResponseWriter }

func (p prompt) Write(b []byte) (int, error) {
	n, err := p.ResponseWriter.Write(b)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(p.ResponseWriter).Flush()
}

package main

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

// chunkSize is what a writer collects for one message: containerd answers each
// before it takes the next, and BuildKit writes small pieces.
const chunkSize = 1 << 20

// chunkedStore packs layers while containerd stores what is packed already.
type chunkedStore struct{ content.Store }

func (s chunkedStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &chunkedWriter{Writer: w}, nil
}

// chunkedWriter has at most one chunk under way, and one that it collects. All
// but Write waits for both.
type chunkedWriter struct {
	content.Writer
	chunk, spare []byte
	sending      chan error // nil: nothing is under way
}

func (w *chunkedWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.chunk == nil {
			w.chunk = make([]byte, 0, chunkSize)
		}
		fits := min(len(p), cap(w.chunk)-len(w.chunk))
		w.chunk = append(w.chunk, p[:fits]...)
		p = p[fits:]
		n += fits
		if len(w.chunk) == cap(w.chunk) {
			if err := w.send(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// send waits for the chunk before and begins with this one.
func (w *chunkedWriter) send() error {
	if err := w.wait(); err != nil || len(w.chunk) == 0 {
		return err
	}
	full, sending := w.chunk, make(chan error, 1)
	w.chunk, w.spare, w.sending = w.spare[:0:cap(w.spare)], full, sending
	if cap(w.chunk) == 0 {
		w.chunk = nil
	}
	go func() {
		_, err := w.Writer.Write(full)
		sending <- err
	}()
	return nil
}

func (w *chunkedWriter) wait() error {
	if w.sending == nil {
		return nil
	}
	err := <-w.sending
	if err == nil {
		w.sending = nil
	} else {
		w.sending <- err // for whoever asks next
	}
	return err
}

func (w *chunkedWriter) flush() error {
	if err := w.send(); err != nil {
		return err
	}
	return w.wait()
}

func (w *chunkedWriter) Digest() digest.Digest {
	_ = w.flush() // Commit tells
	return w.Writer.Digest()
}

func (w *chunkedWriter) Status() (content.Status, error) {
	if err := w.flush(); err != nil {
		return content.Status{}, err
	}
	return w.Writer.Status()
}

func (w *chunkedWriter) Truncate(size int64) error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.Writer.Truncate(size)
}

func (w *chunkedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if err := w.flush(); err != nil {
		_ = w.Writer.Close() // as Commit does
		return err
	}
	return w.Writer.Commit(ctx, size, expected, opts...)
}

// Close keeps what was written, for a writer that goes on with it.
func (w *chunkedWriter) Close() error {
	_ = w.flush() // what is not stored is written again
	return w.Writer.Close()
}

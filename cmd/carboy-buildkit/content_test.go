package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

// kept is a content.Writer in memory that fails after a number of bytes.
type kept struct {
	content.Writer
	held      bytes.Buffer
	room      int
	committed bool
	closed    bool
}

var errFull = errors.New("full")

func (k *kept) Write(p []byte) (int, error) {
	if k.room < len(p) {
		return 0, errFull
	}
	k.room -= len(p)
	return k.held.Write(p)
}

func (k *kept) Digest() digest.Digest { return digest.FromBytes(k.held.Bytes()) }

func (k *kept) Commit(context.Context, int64, digest.Digest, ...content.Opt) error {
	k.committed = true
	return nil
}

func (k *kept) Close() error {
	k.closed = true
	return nil
}

// Pieces of any size arrive whole and in order, before they are asked about.
func TestChunks(t *testing.T) {
	inner := &kept{room: 1 << 30}
	w := &chunkedWriter{Writer: inner}
	var want bytes.Buffer
	for want.Len() < 5*chunkSize {
		piece := make([]byte, rand.N(chunkSize/2))
		for i := range piece {
			piece[i] = byte(rand.Uint32())
		}
		want.Write(piece)
		if n, err := w.Write(piece); err != nil || n != len(piece) {
			t.Fatal(n, err)
		}
		clear(piece) // a writer keeps nothing of its caller's
	}
	if got := w.Digest(); got != digest.FromBytes(want.Bytes()) {
		t.Errorf("%d bytes arrived, not the %d that were written", inner.held.Len(), want.Len())
	}
	if err := w.Commit(t.Context(), 0, ""); err != nil || !inner.committed {
		t.Errorf("commit: %v", err)
	}
}

// An error of a chunk that was under way is told at the latest by Commit.
func TestChunkThatFails(t *testing.T) {
	inner := &kept{room: chunkSize}
	w := &chunkedWriter{Writer: inner}
	_, first := w.Write(make([]byte, chunkSize+1))
	_ = w.Digest()
	if err := w.Commit(t.Context(), 0, ""); !errors.Is(errors.Join(first, err), errFull) || inner.committed || !inner.closed {
		t.Errorf("%v, %v; committed %v, closed %v", first, err, inner.committed, inner.closed)
	}
}

func TestMarker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "running")
	own, other := marker{path, "boot-1"}, marker{path, "boot-2"}
	check := func(m marker, left, crashed bool) {
		t.Helper()
		if l, c, err := m.look(); l != left || c != crashed || err != nil {
			t.Errorf("left %v, crashed %v: %v", l, c, err)
		}
	}
	check(own, false, false)
	if err := errors.Join(own.set(), own.sync()); err != nil {
		t.Fatal(err)
	}
	check(own, true, false)
	check(other, true, true)
	if err := own.remove(); err != nil {
		t.Fatal(err)
	}
	check(other, false, false)
}

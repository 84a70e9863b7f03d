package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stallTime is how long a registry may send nothing in the middle of a blob.
const stallTime = 45 * time.Second

// fetcher tells what it reads, and gives up on a registry that hangs.
type fetcher struct {
	remotes.Fetcher
	read func(ocispec.Descriptor, int)
}

func (f fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	desc.URLs = nil // where an image would have this host fetch from, past the registry and its mirrors
	ctx, cancel := context.WithCancelCause(ctx)
	body, err := f.Fetcher.Fetch(ctx, desc)
	if err != nil {
		cancel(nil)
		return nil, transferError{err}
	}
	cause := func() error { return context.Cause(ctx) }
	return &stream{ReadCloser: body, cause: cause, cancel: cancel, read: func(n int) { f.read(desc, n) }}, nil
}

// stream is a blob on its way. The first read makes the request.
type stream struct {
	io.ReadCloser
	cause  func() error // of the request's end
	cancel context.CancelCauseFunc
	read   func(int)
}

func (s *stream) Read(p []byte) (int, error) {
	watch := time.AfterFunc(stallTime, func() { s.cancel(fmt.Errorf("it sent nothing for %v: %w", stallTime, io.ErrNoProgress)) })
	n, err := s.ReadCloser.Read(p)
	watch.Stop()
	if n > 0 {
		s.read(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = transferError{errors.Join(err, s.stalled())}
	}
	return n, err
}

func (s *stream) stalled() error {
	if cause := s.cause(); errors.Is(cause, io.ErrNoProgress) {
		return cause
	}
	return nil
}

// Seek is where a blob goes on that was cut off.
func (s *stream) Seek(offset int64, whence int) (int64, error) {
	seeker, ok := s.ReadCloser.(io.Seeker)
	if !ok {
		return 0, fmt.Errorf("seek in a blob: %w", errdefs.ErrNotImplemented)
	}
	return seeker.Seek(offset, whence)
}

func (s *stream) Close() error {
	defer s.cancel(nil)
	return s.ReadCloser.Close()
}

// transferError is the registry's side of a failed copy; all else is ours.
type transferError struct{ error }

func (t transferError) Unwrap() error { return t.error }

// BadRange says of a failed transfer that the registry has no such part.
func BadRange(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	return errors.As(err, &status) && status.StatusCode == http.StatusRequestedRangeNotSatisfiable
}

// Transient says of a failed transfer whether to try it again makes sense.
func Transient(err error) bool {
	var transfer transferError
	if !errors.As(err, &transfer) {
		return errors.Is(err, io.ErrUnexpectedEOF) // the blob ended too early
	}
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode >= http.StatusInternalServerError || status.StatusCode == http.StatusTooManyRequests ||
			status.StatusCode == http.StatusRequestTimeout
	}
	return !denied(err) && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) && certificateProblem(err) == ""
}

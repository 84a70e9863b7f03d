package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Explain says what the failure of a pull means and what can be done. The
// registry's own words are in it, safe for a terminal; classes are kept.
func (a Access) Explain(ref string, err error) error {
	host := domain(ref)
	safe := printable{err}
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case denied(err):
		return fmt.Errorf("registry %s denied it, %s (%w): %w", host, a.used(host), safe, errdefs.ErrPermissionDenied)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("registry %s has no such image: check name and tag; a private one may need a login (%w)", host, safe)
	case certificateProblem(err) != "":
		return fmt.Errorf("TLS with registry %s: %s (%w): %w", host, a.certificateAdvice(host, certificateProblem(err)), safe, errdefs.ErrUnavailable)
	case plainHTTP(err):
		return fmt.Errorf("registry %s speaks plain HTTP: if you trust the network to it, use --insecure-registry %s (%w): %w", host, host, safe, errdefs.ErrUnavailable)
	case errors.As(err, &status) && status.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("registry %s limits the rate of pulls, %s: wait, or log in (%w): %w", host, a.used(host), safe, errdefs.ErrUnavailable)
	case unreachable(err):
		return fmt.Errorf("registry %s cannot be reached: check its name, the network and $HTTPS_PROXY (%w): %w", host, safe, errdefs.ErrUnavailable)
	case Transient(err):
		return fmt.Errorf("registry %s broke off, again and again: pull again to go on from there (%w): %w", host, safe, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("from registry %s: %w", host, safe)
}

func domain(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return Printable(ref)
	}
	return reference.Domain(named)
}

func (a Access) used(host string) string {
	const way = "`docker login`, or name a file with --registry-config"
	if a.Logins == nil {
		return "asked without credentials"
	}
	if told := a.Logins.told(); told != "" {
		return "asked with " + told + ": log in again with " + way
	}
	return fmt.Sprintf("asked without credentials, for none were found for %s: log in with %s", host, way)
}

func denied(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden
	}
	return errors.Is(err, docker.ErrInvalidAuthorization)
}

// certificateProblem is empty for what is none.
func certificateProblem(err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &authority):
		return "its certificate is signed by an authority that this host does not know"
	case errors.As(err, &name):
		return "its certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired, or this host's clock is wrong"
	case errors.As(err, &invalid), errors.As(err, &verification):
		return "its certificate is not valid"
	}
	return ""
}

func (a Access) certificateAdvice(host, problem string) string {
	dir := a.HostsDir
	if dir == "" {
		dir = HostsDir
	}
	return fmt.Sprintf("%s: put the authority's certificate at %s", problem, filepath.Join(dir, host, "ca.crt"))
}

func plainHTTP(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) && strings.HasPrefix(string(record.RecordHeader[:]), "HTTP")
}

func unreachable(err error) bool {
	var name *net.DNSError
	var op *net.OpError
	return errors.As(err, &name) || errors.As(err, &op) && op.Op == "dial" || errors.As(err, &op) && op.Op == "proxyconnect" ||
		errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
}

package provision

import "carboy/runtime/initproto"

const (
	// authorityPath is the bottle's authority alone, for programs that add it to
	// what they trust.
	authorityPath = runDir + "ca.pem"
	// bundlePath is the image's authorities and the bottle's, for programs that
	// trust one file.
	bundlePath = runDir + "ca-bundle.pem"
)

// bundles are where distributions keep what programs trust that look at no
// variable: Debian, Alpine and Arch; Fedora, RHEL and those built from it; SUSE.
// Other names that these have for them are links.
func bundles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/ca-bundle.pem",
	}
}

// anchors are directories that the tools read which make the bundles anew.
func anchors() []string {
	return []string{
		"/usr/local/share/ca-certificates/carboy.crt",
		"/etc/pki/ca-trust/source/anchors/carboy.crt",
		"/etc/pki/trust/anchors/carboy.crt",
	}
}

// authorityFiles are first of all: what comes later may use the network.
func (a Agent) authorityFiles() ([]initproto.File, error) {
	if len(a.Authority) == 0 {
		return nil, nil
	}
	bundle := public(bundlePath, a.Authority)
	bundle.After = bundles()
	files := []initproto.File{public(authorityPath, a.Authority), bundle}
	for _, path := range append(bundles(), anchors()...) {
		files = append(files, initproto.File{Path: path, Mode: 0o644, Owner: "0:0", Data: a.Authority, Append: true})
	}
	return files, nil
}

// authorityEnv is for programs that bring their own list, or none.
func (a Agent) authorityEnv() []string {
	if len(a.Authority) == 0 {
		return nil
	}
	return []string{
		"NODE_EXTRA_CA_CERTS=" + authorityPath,
		"CODEX_CA_CERTIFICATE=" + bundlePath,
		"SSL_CERT_FILE=" + bundlePath, // OpenSSL, Go, rustls
		"CURL_CA_BUNDLE=" + bundlePath,
		"GIT_SSL_CAINFO=" + bundlePath,
		"REQUESTS_CA_BUNDLE=" + bundlePath, // Python
		"PIP_CERT=" + bundlePath,
		"CARGO_HTTP_CAINFO=" + bundlePath,
	}
}

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carboy/runtime/proxy/policy"
	"carboy/runtime/version"
)

func TestRunRefuses(t *testing.T) {
	good, bad := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(good, policy.File), []byte(`{"version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bad, policy.File), []byte(`{"version":1,"allow":["*"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		args string
		says string
	}{
		{"", "--listen and --config are needed"},
		{"--listen 127.0.0.1:0", "--listen and --config are needed"},
		{"--listen :8888 --config " + good, "give an address and a port"},
		{"--listen localhost:8888 --config " + good, "give an address and a port"},
		{"--listen 127.0.0.1:0 --config " + good + " --idle-timeout 0s", "above zero"},
		{"--listen 127.0.0.1:0 --config " + good + " more", `unexpected argument "more"`},
		{"--nonsense", "unknown flag"},
		{"--listen 127.0.0.1:0 --config " + good + "/none", "watch policy directory " + good + "/none"},
		{"--listen 127.0.0.1:0 --config " + t.TempDir(), "read policy: "},
		{"--listen 127.0.0.1:0 --config " + bad, "bad host pattern"},
		{"--listen " + taken.Addr().String() + " --config " + good, "address already in use"},
	} {
		err := run(t.Context(), strings.Fields(tt.args), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.says)
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(done, []string{"--listen", "127.0.0.1:0", "--config", good}, &bytes.Buffer{}); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--version"}, &out); err != nil || strings.TrimSpace(out.String()) != version.Build {
		t.Errorf("%q, %v", out.String(), err)
	}
	err := run(t.Context(), []string{"--listen", "127.0.0.1:0", "--config", t.TempDir(), "--build", "another"}, &out)
	if err == nil || !strings.Contains(err.Error(), `and carboy of "another"`) {
		t.Errorf("started by another build: %v", err)
	}
}

// A policy that cannot be followed is no policy.
func TestServeEndsWithItsWatch(t *testing.T) {
	b := newBench(t)
	w, err := watch(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.close()
	if err := b.serve(t.Context(), l, w); err == nil || !strings.Contains(err.Error(), "watch policy") {
		t.Errorf("serve: %v", err)
	}
}

package sshagent

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"carboy/runtime/invoker"
	"carboy/test/world"
)

func me(home string) invoker.User {
	return invoker.User{UID: os.Getuid(), GID: os.Getgid(), Name: "me", Home: home}
}

// keyFile writes a private key, and returns its fingerprint.
func keyFile(t *testing.T, path, phrase string) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if phrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "secret comment")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "secret comment", []byte(phrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.FingerprintSHA256(signer.PublicKey())
}

// signs proves that a key is whole.
func signs(t *testing.T, k Key) {
	t.Helper()
	signature, err := k.sign([]byte("data"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Public.Verify([]byte("data"), signature); err != nil {
		t.Error(err)
	}
}

func TestOpenFile(t *testing.T) {
	home := t.TempDir()
	want := keyFile(t, filepath.Join(home, "key"), "")
	for _, path := range []string{"~/key", filepath.Join(home, "key")} {
		k, err := Source{User: me(home)}.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if ssh.FingerprintSHA256(k.Public) != want || k.Comment != "key" {
			t.Errorf("%s: %+v", path, k)
		}
		signs(t, k)
	}
}

func TestOpenFileAsksForThePassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	keyFile(t, path, "open sesame")
	answer, asked := []byte("open sesame"), ""
	s := Source{User: me(""), Passphrase: func(file string) ([]byte, error) {
		asked = file
		return answer, nil
	}}
	k, err := s.Open(path)
	if err != nil || asked != path {
		t.Fatalf("asked for %q: %v", asked, err)
	}
	signs(t, k)
	if strings.Trim(string(answer), "\x00") != "" {
		t.Error("the passphrase is left in memory")
	}
	answer = []byte("wrong")
	if _, err := s.Open(path); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong passphrase: %v", err)
	}
	s.Passphrase = func(string) ([]byte, error) { return nil, errors.New("no terminal") }
	if _, err := s.Open(path); err == nil || !strings.Contains(err.Error(), "no terminal") {
		t.Errorf("nobody to ask: %v", err)
	}
}

func TestOpenFileErrors(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", garbage: "ssh key " + garbage, "/dev/zero": "not a regular file",
		"/proc/self/cmdline": "ssh key", "~/key": "no home",
	} {
		_, err := Source{User: me("")}.Open(path)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// ownAgent is an invoker's ssh-agent with keys of these comments.
func ownAgent(t *testing.T, comments ...string) (socket string, ring agent.Agent) {
	t.Helper()
	ring = agent.NewKeyring()
	for _, comment := range comments {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: private, Comment: comment}); err != nil {
			t.Fatal(err)
		}
	}
	socket = filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go world.LendKeys(l, ring)
	return socket, ring
}

func TestOpenOwnAgent(t *testing.T) {
	socket, ring := ownAgent(t, "work", "home")
	s := Source{User: me(""), Socket: socket}
	k, err := s.Open("agent:home")
	if err != nil || k.Comment != "home" {
		t.Fatalf("%+v, %v", k, err)
	}
	signs(t, k)
	if k, err = s.Open("agent:" + ssh.FingerprintSHA256(k.Public)); err != nil || k.Comment != "home" {
		t.Errorf("by fingerprint: %+v, %v", k, err)
	}
	for name, want := range map[string]string{"agent": "more than one key", "agent:other": `no key "other"`} {
		if _, err := s.Open(name); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `("work")`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ring.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.sign([]byte("data"), 0); err == nil {
		t.Error("signed with a key that the agent has no longer")
	}
	if _, err := s.Open("agent"); err == nil || !strings.Contains(err.Error(), "ssh-add") {
		t.Errorf("an empty agent: %v", err)
	}
}

func TestOpenOnlyKeyOfOwnAgent(t *testing.T) {
	socket, _ := ownAgent(t, "only")
	k, err := Source{User: me(""), Socket: socket}.Open("agent")
	if err != nil || k.Comment != "only" {
		t.Errorf("%+v, %v", k, err)
	}
	if _, err := (Source{User: me("")}).Open("agent"); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK") {
		t.Errorf("no agent: %v", err)
	}
	if _, err := (Source{User: me(""), Socket: socket + "x"}).Open("agent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
}

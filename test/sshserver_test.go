package test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"carboy/test/world"
)

// sshPort is where the Internet's sshd listens, on each of its addresses.
const sshPort = 2222

// sshKey is a key pair with its private half as files have it.
type sshKey struct {
	private []byte // PEM
	seed    []byte
	public  string // "ssh-ed25519 AAAA..."
	print   string // fingerprint
}

func newSSHKey(t *testing.T, phrase string) sshKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if phrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(phrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return sshKey{private: pem.EncodeToMemory(block), seed: private.Seed(),
		public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))), print: ssh.FingerprintSHA256(public)}
}

// forms are what the private half looks like in files and in memory.
func (k sshKey) forms() *needle {
	lines := strings.Split(string(k.private), "\n")
	return &needle{value: lines[3], forms: [][]byte{[]byte(lines[3]), k.seed}} // behind what the public half shares
}

// gitServer is a real sshd with a repository of its user git.
type gitServer struct {
	hostKey sshKey
	home    string
}

// newGitServer serves until the end of the test whoever has one of the keys.
func newGitServer(t *testing.T, r *rig, keys ...sshKey) *gitServer {
	t.Helper()
	s := &gitServer{hostKey: newSSHKey(t, ""), home: account(t, "git", 2001)}
	account(t, "sshd", 2002) // whom sshd becomes
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host"), string(s.hostKey.private), 0o600)
	var authorized string
	for _, k := range keys {
		authorized += k.public + "\n"
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "authorized"), authorized, 0o644)
	config := filepath.Join(dir, "config")
	write(t, config, fmt.Sprintf("HostKey %s/host\nAuthorizedKeysFile %[1]s/authorized\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n", dir), 0o600)
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	s.makeRepository(t)
	l, err := r.Listen(t.Context(), "ssh", sshPort)
	if err != nil {
		t.Fatal(err)
	}
	serveSSH(t, l, config)
	return s
}

func (s *gitServer) repository() string { return filepath.Join(s.home, "project.git") }

// makeRepository has one commit, on main.
func (s *gitServer) makeRepository(t *testing.T) {
	t.Helper()
	tree := t.TempDir()
	git := func(args ...string) {
		hostTool(t, "git", append([]string{"-C", tree, "-c", "user.name=Owner", "-c", "user.email=owner@example.com"}, args...)...)
	}
	git("init", "-q", "-b", "main")
	git("commit", "-q", "--allow-empty", "-m", "first")
	git("clone", "-q", "--bare", tree, s.repository())
	hostTool(t, "chown", "-R", "git:2001", s.repository())
}

// log is what git says of a branch's last commit.
func (s *gitServer) log(t *testing.T, branch string) string {
	t.Helper()
	return hostTool(t, "git", "-c", "safe.directory=*", "-C", s.repository(), "log", "-1", "--format=%an <%ae> %cn: %s", branch)
}

// serveSSH runs one sshd for each connection.
func serveSSH(t *testing.T, l net.Listener, config string) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				c := exec.CommandContext(ctx, "/usr/sbin/sshd", "-i", "-f", config)
				c.Stdin, c.Stdout, c.WaitDelay = conn, conn, time.Second
				_ = c.Run() // clients leave as they like
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		all.Wait()
	})
}

const sshImage = "carboy.test/ssh:latest"

// sshTools are the host's own git and ssh with what they link.
func sshTools(t *testing.T) world.Image {
	t.Helper()
	files := map[string][]byte{"etc/ssh/ssh_config": []byte("Include /etc/ssh/ssh_config.d/*.conf\n")} // as Debian's begins
	for _, tool := range []string{"git", "ssh", "ssh-add", "ssh-keygen"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatalf("%v: run `make deps`", err)
		}
		addFiles(t, files, append(libraries(t, path), path)...)
	}
	return world.Image{Name: sshImage, Files: files, Env: []string{"PATH=/bin:/usr/bin"}}
}

// libraries are this machine's, as a program loads them.
func libraries(t *testing.T, program string) (paths []string) {
	t.Helper()
	for _, word := range strings.Fields(hostTool(t, "ldd", program)) {
		if strings.HasPrefix(word, "/") {
			paths = append(paths, word)
		}
	}
	return paths
}

// addFiles gives an image files of this machine, at their own paths.
func addFiles(t *testing.T, files map[string][]byte, paths ...string) {
	t.Helper()
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = b
	}
}

package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"
)

const guardedRegistry = "registry.test:5000"

// withLogin is the configuration that `docker login` makes.
func withLogin(registry, user, password string) string {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, registry, auth)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// account makes a user of the private host, with an open home.
func account(t *testing.T, user string, uid int) (home string) {
	t.Helper()
	home = filepath.Join("/var/lib", user) // of the private host
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	write(t, "/etc/passwd", string(before)+fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", user, uid, uid, home), 0o644)
	t.Cleanup(func() {
		write(t, "/etc/passwd", string(before), 0o644)
		_ = os.RemoveAll(home)
	})
	if err := os.Chown(home, uid, uid); err != nil {
		t.Fatal(err)
	}
	return home
}

// selfSigned is a certificate of a name that is its own authority.
func selfSigned(t *testing.T, host string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
}

// startRegistry runs Debian's docker-registry at guardedRegistry, with TLS and a
// user, and pushes an image agent:1. It returns the authority.
func startRegistry(t *testing.T, r *rig, user, password string) (ca []byte) {
	t.Helper()
	dir := t.TempDir()
	ca, key := selfSigned(t, "registry.test")
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"crt": string(ca), "key": string(key), "htpasswd": user + ":" + string(hash) + "\n",
		"config.yml": `version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: ` + dir + `/store}}
http: {addr: "127.0.0.1:5000", tls: {certificate: ` + dir + `/crt, key: ` + dir + `/key}}
auth: {htpasswd: {realm: test, path: ` + dir + `/htpasswd}}
`,
	} {
		write(t, filepath.Join(dir, file), text, 0o600)
	}
	r.SetName("registry.test", netip.MustParseAddr("127.0.0.1"))
	server := exec.Command("docker-registry", "serve", filepath.Join(dir, "config.yml"))
	said := &lockedBuffer{}
	server.Stdout, server.Stderr = said, said
	if err := server.Start(); err != nil {
		t.Fatalf("%v: run `make deps`", err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })

	ref, err := name.ParseReference(guardedRegistry + "/agent:1")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	img := layered(t, 1, 1<<20)
	eventually(t, "docker-registry takes an image", func() bool {
		err = remote.Write(ref, img, remote.WithTransport(transport), remote.WithAuth(&authn.Basic{Username: user, Password: password}))
		return err == nil
	})
	transport.CloseIdleConnections()
	return ca
}

// TestPullLogin: a registry with TLS and passwords, and each place where
// credentials may be.
func TestPullLogin(t *testing.T) {
	r := newRig(t, 0)
	r.forget(t)
	ref := guardedRegistry + "/agent:1"
	ca := startRegistry(t, r, "dev", "sesame")
	home := account(t, "ada", 4321)
	// What the process's own user has must not leak into these.
	t.Setenv("HOME", t.TempDir())

	pull := func(env []string, flags ...string) outcome {
		c := r.command(t, slices.Concat([]string{"pull", ref}, flags)...)
		c.Env = append(c.Env, env...)
		return finish(t, c)
	}
	pull(nil).refused(t, guardedRegistry, "authority that this host does not know", "certs.d/"+guardedRegistry+"/ca.crt")
	write(t, "/etc/containerd/certs.d/"+guardedRegistry+"/ca.crt", string(ca), 0o644)
	t.Cleanup(func() { _ = os.RemoveAll("/etc/containerd/certs.d/" + guardedRegistry) })
	pull(nil).refused(t, guardedRegistry, "denied", "without credentials", "docker login")

	right, wrong := withLogin(guardedRegistry, "dev", "sesame"), withLogin(guardedRegistry, "dev", "password")
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, text, 0o600)
		return path
	}
	bad := file("config.json", wrong)
	pull(nil, "--registry-config", bad).refused(t, "denied", "credentials of dev", bad)
	pull(nil, "--registry-config", "/nowhere/config.json").refused(t, "/nowhere/config.json")
	if o := pull(nil, "--registry-config", file("c.json", "{nonsense")); o.code != 2 || !strings.Contains(o.stderr, "not JSON") {
		t.Errorf("nonsense: %v", o)
	}

	check := func(o outcome, source string) {
		t.Helper()
		if o.code != 0 || !strings.Contains(o.stderr, "registry "+guardedRegistry+": using ") || !strings.Contains(o.stderr, source) {
			t.Errorf("want credentials from %s: %v", source, o)
		}
		r.mustRun(t, "image", "rm", ref)
	}
	good := file("mine.json", right)
	check(pull(nil, "--registry-config", good), good)
	dir := filepath.Dir(file("config.json", right))
	check(pull([]string{"DOCKER_CONFIG=" + dir}), dir+"/config.json")

	// Behind sudo: the user's, by a helper that runs as him, then root's.
	sudo := []string{"SUDO_UID=4321", "SUDO_GID=4321"}
	write(t, filepath.Join(home, "bin", "docker-credential-vault"), `#!/bin/sh
id -u > "$HOME/asked-as"; cat >> "$HOME/asked-as"
echo '{"Username": "dev", "Secret": "sesame"}'
`, 0o755)
	write(t, filepath.Join(home, ".docker", "config.json"), `{"credHelpers": {"`+guardedRegistry+`": "vault"}}`, 0o644)
	check(pull(sudo), "docker-credential-vault ("+home+"/.docker/config.json)")
	if got, err := os.ReadFile(filepath.Join(home, "asked-as")); string(got) != "4321\n"+guardedRegistry {
		t.Errorf("the helper ran as %q, %v", got, err)
	}
	write(t, filepath.Join(home, "bin", "docker-credential-vault"), "#!/bin/sh\necho locked away; exit 1\n", 0o755)
	pull(sudo).refused(t, `credential helper "vault"`, "locked away")
	// root's own login is root's, and can be used by who may run carboy.
	if err := os.Remove(filepath.Join(home, ".docker", "config.json")); err != nil {
		t.Fatal(err)
	}
	write(t, "/root/.docker/config.json", right, 0o600)
	check(pull(sudo), "/root/.docker/config.json")
	if err := os.RemoveAll("/root/.docker"); err != nil {
		t.Fatal(err)
	}
	// A file that the user cannot read is not read for him.
	pull(append(sudo, "DOCKER_CONFIG="+filepath.Dir(good))).refused(t, "denied", "without credentials")
}

// TestPullToken: the registry sends the client to a token server, which wants a
// password, or an identity token.
func TestPullToken(t *testing.T) {
	r := newRig(t, 1)
	r.forget(t)
	h := newHub(t)
	digest := h.push(t, "agent:1", layered(t, 1, 1<<10))
	var asked string
	h.fail(func(next http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("/token", func(w http.ResponseWriter, req *http.Request) {
			user, password, _ := req.BasicAuth()
			asked = user + ":" + password + " " + req.PostFormValue("refresh_token")
			if asked != "dev:sesame " && asked != ": identity" {
				http.Error(w, "{}", http.StatusUnauthorized)
				return
			}
			_, _ = w.Write([]byte(`{"token": "t0ken", "access_token": "t0ken"}`))
		})
		challenge := `Bearer realm="` + h.URL + `/token",service="hub",scope="repository:agent:pull"`
		mux.Handle("/", guarded(challenge, func(req *http.Request) bool { return req.Header.Get("Authorization") == "Bearer t0ken" })(next))
		return mux
	})
	for what, config := range map[string]string{
		"password":       withLogin(h.host(), "dev", "sesame"),
		"identity token": fmt.Sprintf(`{"auths": {%q: {"identitytoken": "identity"}}}`, "http://"+h.host()+"/v1/"),
	} {
		path := filepath.Join(t.TempDir(), "config.json")
		write(t, path, config, 0o600)
		if o := r.run(t, "pull", "--registry-config", path, h.ref("agent:1")); o.stdout != h.ref("agent:1")+"@"+digest+"\n" {
			t.Errorf("%s: %v, asked with %q", what, o, asked)
		}
		r.mustRun(t, "image", "rm", h.ref("agent:1"))
	}
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, withLogin(h.host(), "dev", "nope"), 0o600)
	r.run(t, "pull", "--registry-config", path, h.ref("agent:1")).refused(t, "denied", "credentials of dev", path)
}

package manifest

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"golang.org/x/crypto/ssh"

	"carboy/runtime/bottlespec"
	"carboy/runtime/proxy/policy"
)

// Least sizes of what an agent gets, in bytes: carboy-init and a shell fit.
const (
	LeastMemory = 16 << 20
	LeastDisk   = 1 << 20
)

// Size reads a number of bytes, of which there have to be so many.
func Size(text string, least int64) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil || n < least {
		return 0, fmt.Errorf("%.100q: give a size of at least %s, as in 512MiB or 4g", text, units.BytesSize(float64(least)))
	}
	return n, nil
}

// LoginName can be written to ssh's configuration as it is.
var LoginName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}$`)

// HostKey reads a public key of a host as known-hosts have it.
func HostKey(line string) (ssh.PublicKey, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(options) > 0 || len(rest) > 0 {
		return nil, fmt.Errorf("known host %.100q: give a type and a key alone, as in \"ssh-ed25519 AAAA...\"", line)
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return key, nil
	}
	return nil, fmt.Errorf("known host %.100q: keys of type %s are not for hosts", line, key.Type())
}

// CheckTarget refuses what is no path in the container that a mount or a
// workspace can have.
func CheckTarget(target string) error {
	if !path.IsAbs(target) || target != path.Clean(target) || reserved(target) {
		return fmt.Errorf("%.100q: give an absolute path in the container that is its own, as /data", target)
	}
	return nil
}

// reserved are the paths that a container needs for itself.
func reserved(target string) bool {
	for _, own := range []string{"/dev", "/etc", "/proc", "/run", "/sys", bottlespec.InitPath} {
		if target == own || strings.HasPrefix(target, own+"/") {
			return true
		}
	}
	return target == "/"
}

// CheckSource refuses what is no path of the host, or what no agent is shown:
// sockets of services, devices, the kernel.
func CheckSource(source string) error {
	if !filepath.IsAbs(source) && !strings.HasPrefix(source, "~/") || strings.ContainsRune(source, 0) {
		return fmt.Errorf("%.100q: give an absolute path of the host, or one from ~/", source)
	}
	clean := filepath.Clean(source)
	system := func(dir string) bool { return clean == dir || strings.HasPrefix(clean, dir+"/") }
	if slices.ContainsFunc([]string{"/dev", "/proc", "/run", "/sys", "/var/run"}, system) || clean == "/" {
		return fmt.Errorf("%.100q: services of the host have their sockets and devices there: name a directory of files", source)
	}
	return nil
}

// CheckDirectory refuses what is no absolute path in an image.
func CheckDirectory(dir string) error {
	if !path.IsAbs(dir) {
		return fmt.Errorf("%.100q: give an absolute path in the image", dir)
	}
	return nil
}

// writtenSource may start at the manifest.
func writtenSource(source string) error {
	if source != "" && !filepath.IsAbs(source) && !strings.ContainsRune(source, 0) {
		return nil
	}
	return CheckSource(source)
}

func checkHost(host string) error {
	if _, err := policy.NormalizeHost(host); err != nil {
		return fmt.Errorf("%.100q: %w", host, err)
	}
	return nil
}

// errorOf has a parser check only.
func errorOf[T any](parse func(string) (T, error)) func(string) error {
	return func(text string) error {
		_, err := parse(text)
		return err
	}
}

func checkSize(least int64) func(string) error {
	return errorOf(func(text string) (int64, error) { return Size(text, least) })
}

func checkImage(ref string) error {
	if _, err := reference.ParseDockerRef(ref); err != nil {
		return fmt.Errorf("image reference %.100q: %w", ref, err)
	}
	return nil
}

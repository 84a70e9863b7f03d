package sshagent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// Key is a private key that stays where it is.
type Key struct {
	Public  ssh.PublicKey
	Comment string
	sign    func(data []byte, flags agent.SignatureFlags) (*ssh.Signature, error)
}

// Source is where an invoker's keys come from.
type Source struct {
	User   invoker.User
	Socket string // of the invoker's own ssh-agent; empty without one
	// Passphrase asks for that of a key file.
	Passphrase func(file string) ([]byte, error)
}

// Open finds a key: a file, whose path may begin with ~/, or one of the
// ssh-agent, as manifest.AgentKey has it.
func (s Source) Open(key string) (Key, error) {
	if name, ok := manifest.AgentKey(key); ok {
		return s.fromAgent(name)
	}
	return s.fromFile(key)
}

// Check looks for the file of a key, and does not read it. A key of an ssh-agent
// is another one each time.
func (s Source) Check(key string) error {
	if _, ok := manifest.AgentKey(key); ok {
		return nil
	}
	f, err := s.open(key)
	if err != nil {
		return err
	}
	return f.Close()
}

// open opens the file of a key as the invoker.
func (s Source) open(file string) (*os.File, error) {
	path := file
	if below, ok := strings.CutPrefix(file, "~/"); ok {
		if s.User.Home == "" {
			return nil, fmt.Errorf("ssh key %s: user %s has no home directory", file, s.User.Name)
		}
		path = filepath.Join(s.User.Home, below)
	}
	f, err := s.User.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ssh key: %w", err)
	}
	return f, nil
}

// longestKey is what is read of a file, in bytes.
const longestKey = 64 << 10

func (s Source) fromFile(file string) (Key, error) {
	f, err := s.open(file)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, longestKey))
	if err != nil {
		return Key{}, fmt.Errorf("ssh key: %w", err)
	}
	defer clear(b)
	private, err := s.parse(b, file)
	if err != nil {
		return Key{}, fmt.Errorf("ssh key %s: %w", file, err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private, Comment: filepath.Base(file)}); err != nil {
		return Key{}, fmt.Errorf("ssh key %s: %w", file, err)
	}
	key, err := pick(ring, "")
	if err != nil {
		return Key{}, fmt.Errorf("ssh key %s: %w", file, err)
	}
	key.sign = func(data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
		return ring.(agent.ExtendedAgent).SignWithFlags(key.Public, data, flags)
	}
	return key, nil
}

func (s Source) parse(pem []byte, file string) (private any, err error) {
	private, err = ssh.ParseRawPrivateKey(pem)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		phrase, askErr := s.Passphrase(file)
		if askErr != nil {
			return nil, askErr
		}
		defer clear(phrase)
		private, err = ssh.ParseRawPrivateKeyWithPassphrase(pem, phrase)
	}
	return private, err
}

// signTime bounds a signature by the invoker's ssh-agent, which may ask him.
const signTime = 2 * time.Minute

// fromAgent connects anew for each signature: the agent may be another by then,
// or locked.
func (s Source) fromAgent(name string) (key Key, err error) {
	err = s.ask(func(a agent.ExtendedAgent) (err error) {
		key, err = pick(a, name)
		return err
	})
	if err != nil {
		return Key{}, fmt.Errorf("ssh-agent: %w", err)
	}
	key.sign = func(data []byte, flags agent.SignatureFlags) (signature *ssh.Signature, err error) {
		err = s.ask(func(a agent.ExtendedAgent) error {
			signature, err = a.SignWithFlags(key.Public, data, flags)
			return err
		})
		return signature, err
	}
	return key, nil
}

func (s Source) ask(f func(agent.ExtendedAgent) error) (err error) {
	if s.Socket == "" {
		return errors.New("SSH_AUTH_SOCK is not set: start one with `eval $(ssh-agent)`, or name a key file" + s.keepVariable())
	}
	conn, err := s.User.DialUnix(s.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(signTime)); err != nil {
		return err
	}
	return f(agent.NewClient(struct {
		io.Reader
		io.Writer
	}{conn, conn}))
}

func (s Source) keepVariable() string {
	if s.User.BehindSudo() {
		return "; sudo drops it unless called as `sudo --preserve-env=SSH_AUTH_SOCK carboy ...`, or env_keep in sudoers has it"
	}
	return ""
}

// pick takes the key of that comment or fingerprint, or the only one.
func pick(a agent.Agent, name string) (Key, error) {
	keys, err := a.List()
	if err != nil {
		return Key{}, err
	}
	var found []*agent.Key
	var names []string
	for _, k := range keys {
		fingerprint := ssh.FingerprintSHA256(k)
		if name == "" || name == k.Comment || name == fingerprint {
			found = append(found, k)
		}
		names = append(names, fmt.Sprintf("%s (%+q)", fingerprint, k.Comment))
	}
	switch all := strings.Join(names, ", "); {
	case len(keys) == 0:
		return Key{}, errors.New("it has no key: add one with ssh-add")
	case len(found) == 0:
		return Key{}, fmt.Errorf("it has no key %q, but %s", name, all)
	case len(found) > 1:
		return Key{}, fmt.Errorf("more than one key: name it, as agent:COMMENT or agent:FINGERPRINT; there are %s", all)
	}
	public, err := ssh.ParsePublicKey(found[0].Blob)
	return Key{Public: public, Comment: found[0].Comment}, err
}

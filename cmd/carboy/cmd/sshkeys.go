package cmd

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/sshagent"
)

// openKeys opens the keys that a plan lends, with the rights of who asks. A
// process in the background was handed what it cannot ask for.
func (h *handed) openKeys(ctx context.Context, who invoker.User, hosts []runtime.SSHPlan) ([]sshagent.Key, error) {
	source := sshagent.Source{User: who, Socket: os.Getenv("SSH_AUTH_SOCK"), Passphrase: func(file string) ([]byte, error) {
		return h.passphrase(ctx, file)
	}}
	opened := map[string]sshagent.Key{}
	var keys []sshagent.Key
	for _, host := range hosts {
		key, ok := opened[host.Key]
		if !ok {
			var err error
			if key, err = source.Open(host.Key); err != nil {
				return nil, fmt.Errorf("ssh host %s: %w: %w", host.Host, err, errdefs.ErrInvalidArgument)
			}
			opened[host.Key] = key
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// passphrase is the caller's to clear.
func (h *handed) passphrase(ctx context.Context, file string) ([]byte, error) {
	if phrase, ok := h.Passphrases[file]; ok {
		return bytes.Clone(phrase), nil
	}
	phrase, err := askSecret(ctx, "passphrase of "+quote(file)+" (not shown): ",
		"it has a passphrase, and there is no terminal to ask for it on: put the key into an ssh-agent, and write `key: agent`")
	if err == nil {
		h.Passphrases[file] = bytes.Clone(phrase)
	}
	return phrase, err
}

package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/invoker"
	"carboy/runtime/provision"
)

// logins are what can be stored, by provider, and where users get it.
var logins = map[string]struct{ variable, from string }{
	provision.Claude: {"CLAUDE_CODE_OAUTH_TOKEN", "`claude setup-token`, where you are logged in, prints it"},
	provision.Codex:  {"CODEX_API_KEY", "an API key of platform.openai.com"},
}

func newLogin() *cobra.Command {
	var fromStdin bool
	c := &cobra.Command{
		Use:   "login claude|codex",
		Short: "Store what logs a provider's program in, for your agents",
		Long: `Ask for a token, without showing it, and store it in ~/.config/carboy/logins,
for you alone. Agents of that provider get it where neither you nor their bottle
gives another; agents that a project brought do not get it unasked.`,
		Args: exactlyOne("a provider"),
		RunE: func(c *cobra.Command, args []string) error {
			who, path, err := loginFile(args[0])
			if err != nil {
				return err
			}
			var token []byte
			if fromStdin {
				token, err = readBounded(os.Stdin, "standard input")
			} else {
				l := logins[args[0]]
				token, err = askSecret(c.Context(), secretQuestion(l.variable, l.from), "there is no terminal to ask on: give the token on standard input, with --stdin")
			}
			if err != nil {
				return err
			}
			if err := storeLogin(who, path, bytes.TrimSpace(token)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "stored in %s\n", quotePath(path))
			return err
		},
	}
	c.Flags().BoolVar(&fromStdin, "stdin", false, "read it from standard input")
	return c
}

func newLogout() *cobra.Command {
	return &cobra.Command{
		Use:   "logout claude|codex",
		Short: "Remove what login has stored",
		Args:  exactlyOne("a provider"),
		RunE: func(_ *cobra.Command, args []string) error {
			who, path, err := loginFile(args[0])
			if err != nil {
				return err
			}
			return who.RemoveAll(path)
		},
	}
}

func loginFile(provider string) (who invoker.User, path string, err error) {
	known, ok := logins[provider]
	if !ok {
		return who, "", fmt.Errorf("provider %q: choose claude or codex: %w", provider, errdefs.ErrInvalidArgument)
	}
	if who, err = invoker.Current(); err == nil && who.ConfigDir() == "" {
		err = fmt.Errorf("user %s has no home directory", who.Name)
	}
	return who, storedLogin(who, known.variable), err
}

func storedLogin(who invoker.User, variable string) string {
	return filepath.Join(who.ConfigDir(), "logins", variable)
}

// storeLogin writes a file for its user alone.
func storeLogin(who invoker.User, path string, token []byte) error {
	if len(token) == 0 || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("that is no token: one word of ASCII is: %w", errdefs.ErrInvalidArgument)
	}
	if err := who.RemoveAll(path); err != nil {
		return err
	}
	return who.WriteNew(path, token)
}

// stored is what login has stored, empty without it.
func stored(who invoker.User) func(variable string) (string, error) {
	return func(variable string) (string, error) {
		known := false
		for _, l := range logins {
			known = known || l.variable == variable
		}
		if !known || who.ConfigDir() == "" {
			return "", nil
		}
		b, err := who.ReadFile(storedLogin(who, variable), mostSecret)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return strings.TrimSpace(string(b)), asRequest(err)
	}
}

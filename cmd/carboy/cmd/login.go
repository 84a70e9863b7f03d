package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime/invoker"
	"carboy/runtime/provision"
)

// login is what can be stored for a provider, and where users get it.
type login struct {
	variable string // a word
	account  string // a file in JSON; empty where there is none
	from     string
}

var logins = map[string]login{
	provision.Claude: {"CLAUDE_CODE_OAUTH_TOKEN", "", "`claude setup-token`, where you are logged in, prints it"},
	provision.Codex:  {"CODEX_API_KEY", provision.ChatGPT, "an API key of platform.openai.com"},
}

func newLogin() *cobra.Command {
	var fromStdin bool
	c := &cobra.Command{
		Use:   "login claude|codex",
		Short: "Store what logs a provider's program in, for your agents",
		Long: `Ask for a token, without showing it, and store it in ~/.config/carboy/logins,
for you alone. Agents of that provider get it where neither you nor their bottle
gives another; agents that a project brought do not get it unasked.

Codex takes an API key, or the login of a ChatGPT account: its auth.json. The token
in it that makes new ones is left out, as an agent with that would have the account
for good, and log you out by using it: store it again when the rest has expired.`,
		Example: `  carboy login claude
  carboy login codex --stdin <~/.codex/auth.json`,
		Args: exactlyOne("a provider"),
		RunE: func(c *cobra.Command, args []string) error {
			who, l, err := findLogin(args[0])
			if err != nil {
				return err
			}
			var token []byte
			if fromStdin {
				token, err = readBounded(os.Stdin, "standard input")
			} else {
				token, err = askSecret(c.Context(), secretQuestion(l.variable, l.from), "there is no terminal to ask on: give the token on standard input, with --stdin")
			}
			if err != nil {
				return err
			}
			said, err := l.store(who, bytes.TrimSpace(token))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), said)
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
			who, l, err := findLogin(args[0])
			if err != nil {
				return err
			}
			return l.remove(who)
		},
	}
}

func findLogin(provider string) (who invoker.User, l login, err error) {
	l, ok := logins[provider]
	if !ok {
		return who, l, fmt.Errorf("provider %q: choose claude or codex: %w", provider, errdefs.ErrInvalidArgument)
	}
	if who, err = invoker.Current(); err == nil && who.ConfigDir() == "" {
		err = fmt.Errorf("user %s has no home directory", who.Name)
	}
	return who, l, err
}

func storedLogin(who invoker.User, variable string) string {
	return filepath.Join(who.ConfigDir(), "logins", variable)
}

// store writes a file for its user alone, in place of what was stored before, and
// returns what to say about it.
func (l login) store(who invoker.User, token []byte) (said string, err error) {
	path, until := storedLogin(who, l.variable), ""
	if l.account != "" && bytes.HasPrefix(token, []byte("{")) {
		var end time.Time
		if token, end, err = provision.NewChatGPT(token); err != nil {
			return "", err
		}
		if end.Before(time.Now()) {
			return "", fmt.Errorf("that login has expired on %s: use codex once, and give its auth.json again: %w", end.Format(time.DateTime), errdefs.ErrInvalidArgument)
		}
		path, until = storedLogin(who, l.account), ", good until "+end.Format(time.DateTime)
	}
	if len(token) == 0 || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("that is no token: one word of ASCII is: %w", errdefs.ErrInvalidArgument)
	}
	if err := l.remove(who); err != nil {
		return "", err
	}
	return "stored in " + quotePath(path) + until, who.WriteNew(path, token)
}

func (l login) remove(who invoker.User) (err error) {
	for _, variable := range []string{l.variable, l.account} {
		if variable != "" {
			err = errors.Join(err, who.RemoveAll(storedLogin(who, variable)))
		}
	}
	return err
}

// stored is what login has stored, empty without it.
func stored(who invoker.User) func(variable string) (string, error) {
	return func(variable string) (string, error) {
		known := false
		for _, l := range logins {
			known = known || variable == l.variable || variable == l.account
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

package provision

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"carboy/runtime/initproto"
)

// Git is what git in the bottle is told. The zero value is nothing.
type Git struct {
	Name      string            `json:"name,omitempty"`
	Email     string            `json:"email,omitempty"`
	InsteadOf map[string]string `json:"insteadOf,omitempty"` // prefix that is written -> URL that is used
}

// CheckIdentity refuses a name or an address of a person that git could not
// hold, or would change.
func CheckIdentity(text string) error {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("control character in %.100q", text)
	}
	if strings.ContainsAny(text, "<>") || text != strings.TrimSpace(text) {
		return fmt.Errorf("%.100q: git drops blanks around and < > in names and addresses", text)
	}
	return nil
}

// CheckAddress refuses what cannot be the beginning of an address.
func CheckAddress(text string) error {
	if text == "" || strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%.100q: give the beginning of an address, and what stands for it", text)
	}
	return nil
}

// Check refuses what git could not hold, or would change.
func (g Git) Check() error {
	for _, text := range []string{g.Name, g.Email} {
		if err := CheckIdentity(text); err != nil {
			return err
		}
	}
	for written, used := range g.InsteadOf {
		if err := errors.Join(CheckAddress(written), CheckAddress(used)); err != nil {
			return fmt.Errorf("instead-of: %w", err)
		}
	}
	return nil
}

// IsZero says that git is told nothing.
func (g Git) IsZero() bool { return g.Name == "" && g.Email == "" && len(g.InsteadOf) == 0 }

// gitConfigPath is read in the place of the system's file: what the agent and
// the project set goes over it.
const gitConfigPath = runDir + "gitconfig"

func (a Agent) hasGitConfig() bool { return !a.Git.IsZero() || a.Workspace != "" }

func (a Agent) gitFiles() ([]initproto.File, error) {
	if !a.hasGitConfig() {
		return nil, nil
	}
	if err := a.Git.Check(); err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	return []initproto.File{public(gitConfigPath, []byte(a.gitConfig()))}, nil
}

// gitConfig has the image's own settings first: the last one is git's choice.
func (a Agent) gitConfig() string {
	var c gitConfig
	c.section("include", "")
	c.set("path", "/etc/gitconfig")
	c.section("user", "")
	c.set("name", a.Git.Name)
	c.set("email", a.Git.Email)
	for _, written := range slices.Sorted(maps.Keys(a.Git.InsteadOf)) {
		c.section("url", a.Git.InsteadOf[written])
		c.set("insteadOf", written)
	}
	if a.Workspace != "" { // its owner may be another than runs git there
		c.section("safe", "")
		c.set("directory", a.Workspace)
		c.set("directory", a.Workspace+"/*")
	}
	return c.String()
}

// gitConfig is a file in the syntax of git-config(1).
type gitConfig struct{ strings.Builder }

func (c *gitConfig) section(name, sub string) {
	if sub != "" {
		name += " " + gitQuote(sub)
	}
	_, _ = fmt.Fprintf(c, "[%s]\n", name) // a Builder never fails
}

func (c *gitConfig) set(key, value string) {
	if value != "" {
		_, _ = fmt.Fprintf(c, "\t%s = %s\n", key, gitQuote(value))
	}
}

// gitQuote quotes a value or a subsection without control characters.
func gitQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

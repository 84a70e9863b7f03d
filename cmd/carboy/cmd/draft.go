package cmd

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/goccy/go-yaml"

	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

// shipped are the manifests that are installed with carboy, with the Dockerfiles
// of the providers that have one.
//
//go:embed shipped
var shipped embed.FS

// draft is a file that is about to be written.
type draft struct {
	path string
	text []byte
}

// agentDraft is agents/NAME.md. What is empty is left out.
type agentDraft struct {
	Bottle   string   `yaml:"bottle"`
	Provider string   `yaml:"provider,omitempty"`
	Skills   []string `yaml:"skills,omitempty,flow"`
}

// bottleDraft is bottles/NAME.yaml.
type bottleDraft struct {
	Image   string            `yaml:"image,omitempty"`
	Build   *buildDraft       `yaml:"build,omitempty"`
	Runtime string            `yaml:"runtime,omitempty"`
	Env     map[string]string `yaml:"env,omitempty"`
	Egress  egressDraft       `yaml:"egress,omitempty"`
	SSH     []sshDraft        `yaml:"ssh,omitempty"`
}

type buildDraft struct {
	Context string `yaml:"context"`
}

type egressDraft struct {
	Presets []string `yaml:"presets,omitempty,flow"`
	Allow   []string `yaml:"allow,omitempty"`
	Private []string `yaml:"private,omitempty"`
	DLP     string   `yaml:"dlp,omitempty"`
}

type sshDraft struct {
	Host       string   `yaml:"host"`
	HostName   string   `yaml:"hostname,omitempty"`
	Port       uint16   `yaml:"port,omitempty"`
	User       string   `yaml:"user,omitempty"`
	Key        string   `yaml:"key,omitempty"`
	KnownHosts []string `yaml:"known-hosts,omitempty"`
}

// plainText is what YAML takes for text, unquoted, but for words of its own.
var (
	plainText = regexp.MustCompile(`^([A-Za-z/]|~/)[A-Za-z0-9/._@~+-]*(:[A-Za-z0-9/._@~+-]+)*$`)
	yamlWord  = regexp.MustCompile(`(?i)^(true|false|null)$`)
)

// quoted leaves no choice to the encoder, which writes a leading tab, "? a" and
// line breaks such that something else is read.
var quoted = yaml.CustomMarshaler(func(s string) ([]byte, error) {
	if plainText.MatchString(s) && !yamlWord.MatchString(s) {
		return []byte(s), nil
	}
	return json.Marshal(s)
})

func draftAgent(dir, name string, a agentDraft, prompt string) (draft, error) {
	head, err := yaml.MarshalWithOptions(a, quoted)
	text := fmt.Sprintf("---\n%s---\n", head)
	if prompt != "" {
		text += prompt + "\n"
	}
	return draft{filepath.Join(dir, "agents", name+".md"), []byte(text)}, err
}

func draftBottle(dir, name string, b bottleDraft) (draft, error) {
	text, err := yaml.MarshalWithOptions(b, quoted)
	return draft{filepath.Join(dir, "bottles", name+".yaml"), text}, err
}

// draftDockerfile is what a bottle without an image of its own builds: the
// provider's, in a directory of its name beside the bottles.
func draftDockerfile(dir, provider string) (d draft, ok bool) {
	text, err := shipped.ReadFile("shipped/bottles/" + provider + "/Dockerfile")
	return draft{filepath.Join(dir, "bottles", provider, "Dockerfile"), text}, err == nil
}

// checkDrafts refuses manifests that would not be valid once they are written.
func checkDrafts(dir manifest.Dir, drafts []draft) error {
	read := dir.ReadFile
	dir.ReadFile = func(path string, limit int64) ([]byte, error) {
		for _, d := range drafts {
			if d.path == path {
				return d.text, nil
			}
		}
		return read(path, limit)
	}
	for _, ext := range []string{".yaml", ".md"} { // what is wrong with a bottle is said once, not for its agents too
		var errs []error
		for _, d := range drafts {
			if filepath.Ext(d.path) == ext {
				_, err := validate(nil, []manifest.Dir{dir}, d.path, d.text)
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// writeDrafts writes all as the user, or none where one of them is there. A
// Dockerfile that is there is as good.
func writeDrafts(w io.Writer, who invoker.User, drafts []draft) error {
	var missing []draft
	for _, d := range drafts {
		there, err := who.ReadFile(d.path, 1<<20)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, d)
		case filepath.Base(d.path) == "Dockerfile" && bytes.Equal(there, d.text):
		case filepath.Base(d.path) == "Dockerfile" && err == nil:
			return fmt.Errorf("%s is there already, and not as this carboy writes it: move it away, or write to another directory with --dest: nothing was written: %w", quotePath(d.path), errdefs.ErrInvalidArgument)
		default:
			return fmt.Errorf("%s is there already: nothing was written: %w", quotePath(d.path), errdefs.ErrInvalidArgument)
		}
	}
	for _, d := range missing {
		if err := who.WriteNew(d.path, d.text); err != nil {
			return asRequest(err)
		}
		if _, err := fmt.Fprintf(w, "wrote %s\n", quotePath(d.path)); err != nil {
			return err
		}
	}
	return nil
}

func printDrafts(w io.Writer, drafts []draft) error {
	for _, d := range drafts {
		if _, err := fmt.Fprintf(w, "# %s\n%s\n", quotePath(d.path), strings.TrimRight(string(d.text), "\n")); err != nil {
			return err
		}
	}
	return nil
}

// draftsDir is the directory that manifests are written to: that, or the user's.
func draftsDir(who invoker.User, dest string) (manifest.Dir, error) {
	if dest == "" {
		dest = who.ConfigDir()
	}
	if dest == "" {
		return manifest.Dir{}, fmt.Errorf("%s has no home directory for manifests: name one with --dest: %w", who.Name, errdefs.ErrInvalidArgument)
	}
	path, err := absolute(dest)
	return manifest.Dir{Path: path, ReadFile: who.ReadFile, List: listDir(who)}, err
}

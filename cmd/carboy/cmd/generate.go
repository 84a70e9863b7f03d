package cmd

import (
	_ "embed"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
)

func newGenerate() *cobra.Command {
	c := &cobra.Command{
		Use:   "generate",
		Short: "Write files for other programs",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newGenerateSystemd())
	return c
}

func newGenerateSystemd() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "systemd AGENT",
		Short: "Print a systemd unit that runs an agent",
		Long: `Print a unit for an agent of ` + manifest.OperatorDir + `, or of those that came with carboy: a
service does not read a user's. It is carboy@.service with the agent's name in
it, and a line for each credential that the agent or its bottle names.`,
		Example: `  carboy generate systemd reviewer >/etc/systemd/system/carboy-reviewer.service`,
		Args:    exactlyOne("an agent"),
		RunE: func(c *cobra.Command, args []string) error {
			a, b, err := manifest.Find(hostDirs(), args[0])
			if err != nil {
				return err
			}
			program, err := os.Executable()
			if err != nil {
				return err
			}
			text, err := unit(program, name, a, b)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the bottle (default AGENT)")
	return c
}

// hostDirs are those that root's services find agents in.
func hostDirs() []manifest.Dir {
	root := invoker.User{UID: os.Geteuid()}
	return slices.DeleteFunc(manifestDirs(root, "/"), func(d manifest.Dir) bool { return d.Project })
}

//go:embed units/carboy@.service
var agentUnit string

// unit is the shipped one for an agent, with its credentials.
func unit(program, name string, a manifest.Agent, b manifest.Bottle) (string, error) {
	r := runtime.Request{Agent: &a, Bottle: &b, Name: name, Lookup: func(string) (string, bool) { return "", true }}
	plan, err := runtime.NewPlan(r)
	if err != nil {
		return "", err
	}
	needs, err := needed(a, b)
	if err != nil {
		return "", err
	}
	const last = "CARBOY_BOTTLE=%i\n" // of the service's lines
	return strings.NewReplacer(
		"The agent %i of /etc/carboy in a bottle of its name.", "The agent "+a.Name+", printed by `carboy generate systemd`.",
		"@PREFIX@/bin/carboy", inUnit(program),
		"--name %i %i", "--name "+plan.Name+" "+a.Name,
		last, "CARBOY_BOTTLE="+plan.Name+"\n"+needs,
		"%i", a.Name,
	).Replace(agentUnit), nil
}

// credentialName is what systemd takes for one.
var credentialName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// needed are the lines for what an agent does not bring itself. A service can
// ask nobody.
func needed(a manifest.Agent, b manifest.Bottle) (string, error) {
	var credentials, variables []string
	for _, values := range []map[string]string{b.Env, a.Env, b.Secrets} {
		for name, text := range values {
			switch from := manifest.ParseSource(text); from.Kind {
			case manifest.Credential:
				if !credentialName.MatchString(from.Text) {
					return "", fmt.Errorf("%s: %q is no name of a credential of systemd: %w", name, from.Text, errdefs.ErrInvalidArgument)
				}
				credentials = append(credentials, from.Text)
			case manifest.Forwarded:
				variables = append(variables, from.Text)
			case manifest.Prompted:
				return "", fmt.Errorf("%s is asked for on a terminal, and a service has none: write credential:NAME into the manifest: %w", name, errdefs.ErrInvalidArgument)
			}
		}
	}
	var text strings.Builder
	for _, v := range sorted(variables) {
		if !variable.MatchString(v) || strings.Contains(v, "=") {
			return "", fmt.Errorf("${%s}: not the name of a variable: %w", quote(v), errdefs.ErrInvalidArgument)
		}
		fmt.Fprintf(&text, "# %s is taken from the environment: use EnvironmentFile=, or write credential:NAME into the manifest.\n", v)
	}
	for _, c := range sorted(credentials) {
		fmt.Fprintf(&text, "LoadCredential=%s:/etc/carboy/credentials/%s\n", c, c)
	}
	return text.String(), nil
}

func sorted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// inUnit is a path as the first word of a command line in a unit.
func inUnit(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	if quote(path) != path {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
	}
	return path
}

package cmd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"carboy/image"
	"carboy/runtime"
	"carboy/runtime/buildproto"
	"carboy/runtime/invoker"
)

// buildFlags are those of `carboy build` as given.
type buildFlags struct {
	buildproto.Build
	names     []string
	args      []string
	secrets   []string
	ssh       []string
	cacheSize string
}

func newBuild(s *settings) *cobra.Command {
	f := &buildFlags{}
	c := &cobra.Command{
		Use:   "build [flags] CONTEXT",
		Short: "Build an image by a Dockerfile",
		Long: `Build an image by the Dockerfile of a directory, with BuildKit and without a
daemon. The name and digest of the image go to standard output, the progress
to standard error.

Files are read with the rights of who calls, also through sudo. RUN reaches
public addresses by default (--network egress), and neither this host, nor
bottles, nor private networks; --network none gives it nothing, --network host
the network of this host.`,
		Args: exactlyOne("the directory to build from"),
		RunE: func(c *cobra.Command, args []string) error {
			f.Context = args[0]
			return f.run(c, s)
		},
	}
	f.register(c)
	c.AddCommand(newBuildPrune(s))
	return c
}

const defaultCacheSize = "10GB"

func (f *buildFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringArrayVarP(&f.names, "tag", "t", nil, "name of the image (repeatable)")
	flags.StringVarP(&f.File, "file", "f", "", "the Dockerfile (default Dockerfile in CONTEXT)")
	flags.StringVar(&f.Target, "target", "", "build this stage")
	flags.StringArrayVar(&f.args, "build-arg", nil, "NAME=VALUE, or NAME from the environment, for ARG (repeatable)")
	flags.StringArrayVar(&f.secrets, "secret", nil, "id=ID,src=FILE or id=ID,env=NAME, for RUN --mount=type=secret (repeatable)")
	flags.StringArrayVar(&f.ssh, "ssh", nil, "default or ID=SOCKET, for RUN --mount=type=ssh (repeatable)")
	flags.BoolVar(&f.NoCache, "no-cache", false, "use nothing that was built before")
	flags.BoolVar(&f.Pull, "pull", false, "ask registries for newer base images; else those that are here are used")
	flags.StringSliceVar(&f.Platforms, "platform", nil, "build for this platform, as in linux/arm64")
	flags.StringVar(&f.Network, "network", buildproto.NetworkEgress, "network of RUN: egress, none or host")
	flags.StringArrayVar(&f.Hosts, "add-host", nil, "NAME:ADDRESS in the hosts file of RUN (repeatable)")
	flags.StringVar(&f.Progress, "progress", "auto", "auto, plain, tty or json")
	flags.BoolVarP(&f.Quiet, "quiet", "q", false, "no progress, and only the digest on standard output")
	flags.StringVar(&f.Buildkit, "buildkit", "", "address of a buildkitd of yours to use instead, as in unix:///run/buildkit/buildkitd.sock; its network is the one of RUN")
	flags.StringVar(&f.cacheSize, "build-cache-size", defaultCacheSize, "what the build cache may take after the build")
}

func (f *buildFlags) run(c *cobra.Command, s *settings) error {
	who, err := invoker.Current()
	if err != nil {
		return err
	}
	o := runtime.BuildOptions{Invoker: who, Stderr: os.Stderr, Environ: clientEnv(who)}
	if o.Keep, err = parseSize(f.cacheSize); err != nil {
		return err
	}
	if o.Build, err = f.parse(); err != nil {
		return err
	}
	for _, name := range o.Names {
		if err := notProxy(s, name); err != nil {
			return err
		}
	}
	o.Logins = s.get("registry-config")
	return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
		if err := h.CheckBuilds(); err != nil {
			return err
		}
		if o.Network == buildproto.NetworkEgress && o.Buildkit == "" {
			if err := s.findPlugins(h); err != nil {
				return err
			}
		}
		digest, err := h.Build(ctx, o)
		if err != nil {
			return err
		}
		if f.Quiet || len(o.Names) == 0 {
			_, err = fmt.Fprintln(c.OutOrStdout(), digest)
			return err
		}
		for _, name := range o.Names {
			if _, err := fmt.Fprintf(c.OutOrStdout(), "%s@%s\n", name, digest); err != nil {
				return err
			}
		}
		return nil
	})
}

// notProxy refuses to give the name of the image on which the seal rests to
// another.
func notProxy(s *settings, ref string) error {
	name, err := image.Normalize(ref)
	if err != nil {
		return err
	}
	if own, err := image.Normalize(s.get("proxy-image")); err == nil && own == name {
		return wrong("%s is the proxy's image: choose another name, or configure another proxy-image", name)
	}
	return nil
}

func wrong(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func (f *buildFlags) parse() (buildproto.Build, error) {
	b := f.Build
	if !slices.Contains([]string{"auto", "plain", "tty", "json"}, b.Progress) {
		return b, wrong("--progress %q: choose auto, plain, tty or json", b.Progress)
	}
	if !slices.Contains(buildproto.Networks, b.Network) {
		return b, wrong("--network %q: choose egress, none or host", b.Network)
	}
	for _, h := range b.Hosts {
		if name, address, ok := strings.Cut(h, ":"); !ok || name == "" || address == "" {
			return b, wrong("--add-host %q: give NAME:ADDRESS", h)
		}
	}
	names, err := f.imageNames()
	if err != nil {
		return b, err
	}
	b.Names = names
	if b.Args, err = buildArgs(f.args); err != nil {
		return b, err
	}
	if b.Secrets, err = secretSpecs(f.secrets); err != nil {
		return b, err
	}
	b.SSH, err = agentSpecs(f.ssh)
	return b, err
}

// imageNames gives an image without a name one after its directory: an image of
// no name would be gone with the next collection of garbage.
func (f *buildFlags) imageNames() ([]string, error) {
	given := f.names
	if len(given) == 0 {
		dir, err := filepath.Abs(f.Context)
		if err != nil {
			return nil, err
		}
		given = []string{image.BuiltName(filepath.Base(dir))}
	}
	var names []string
	for _, n := range given {
		name, err := image.Normalize(n)
		if err != nil {
			return nil, err
		}
		if strings.Contains(name, "@") {
			return nil, wrong("-t %s: an image that is not built yet has no digest", n)
		}
		names = append(names, name)
	}
	return names, nil
}

// buildArgs leaves out what the environment does not have, as docker does.
func buildArgs(given []string) (map[string]string, error) {
	args := map[string]string{}
	for _, a := range given {
		name, value, ok := strings.Cut(a, "=")
		if name == "" {
			return nil, wrong("--build-arg %q: give NAME=VALUE", a)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		args[name] = value
	}
	return args, nil
}

func secretSpecs(given []string) ([]buildproto.Secret, error) {
	var all []buildproto.Secret
	for _, text := range given {
		s, err := secretSpec(text)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// secretSpec reads the environment here and leaves files to the client half.
func secretSpec(text string) (s buildproto.Secret, err error) {
	var env string
	for _, field := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "id":
			s.ID = value
		case "src", "source":
			s.File = value
		case "env":
			env = value
		case "type": // it follows from the other keys
		default:
			return s, wrong("--secret: unknown key %q: give id=ID,src=FILE or id=ID,env=NAME", key)
		}
	}
	if s.ID == "" || s.File != "" && env != "" {
		return s, wrong("--secret %q: give id=ID,src=FILE or id=ID,env=NAME", text)
	}
	if s.File != "" {
		return s, nil
	}
	name := cmp.Or(env, s.ID)
	value, ok := os.LookupEnv(name)
	if !ok {
		return s, wrong("--secret %s: there is no variable %s in the environment", s.ID, name)
	}
	s.Value = []byte(value)
	return s, nil
}

func agentSpecs(given []string) ([]buildproto.Agent, error) {
	var all []buildproto.Agent
	for _, text := range given {
		id, paths, ok := strings.Cut(text, "=")
		if id == "" || ok && paths == "" {
			return nil, wrong("--ssh %q: give default or ID=SOCKET", text)
		}
		a := buildproto.Agent{ID: id}
		if paths != "" {
			a.Paths = strings.Split(paths, ",")
		}
		all = append(all, a)
	}
	return all, nil
}

func parseSize(text string) (int64, error) {
	n, err := units.FromHumanSize(text)
	if err != nil {
		return 0, wrong("--build-cache-size %q: give a size, as in 10GB", text)
	}
	return n, nil
}

// clientEnv is what the client half needs of the environment: it runs as the
// invoker, who can read it there.
func clientEnv(who invoker.User) []string {
	env := []string{"HOME=" + who.Home, "USER=" + who.Name, "LOGNAME=" + who.Name}
	for _, name := range []string{
		"PATH", "TERM", "COLUMNS", "LANG", "NO_COLOR", "DOCKER_CONFIG", "SSH_AUTH_SOCK", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func newBuildPrune(s *settings) *cobra.Command {
	var all bool
	var size string
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove build cache, the least recently used first",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			keep, err := parseSize(size)
			if err != nil {
				return err
			}
			if all {
				keep = 0
			}
			return awaited(c, s, "removing build cache", func(ctx context.Context, h *runtime.Host) error {
				if err := h.CheckBuilds(); err != nil {
					return err
				}
				removed, err := h.PruneBuilds(ctx, keep, os.Stderr)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "removed %s\n", units.HumanSize(float64(removed)))
				return err
			})
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "remove all of it")
	c.Flags().StringVar(&size, "build-cache-size", defaultCacheSize, "what may stay")
	return c
}

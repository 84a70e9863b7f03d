package cmd

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"carboy/image/registry"
	"carboy/netns"
	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/proxy"
)

// setting is a global option: flag over environment over file over default.
type setting struct {
	name  string
	env   string
	usage string
	def   string
	list  bool // a comma-separated list on the command line, a sequence in the file

	value  string
	source string
}

// settings are all of them, by name.
type settings struct {
	all   []*setting
	quiet bool // of the command, where it has that flag

	restrict func(ctx context.Context, groups []string) (*restriction, error)
	held     *restriction // nil: who calls may do everything
}

func (s *settings) register(root *cobra.Command) {
	s.all = []*setting{
		{name: "address", env: "CONTAINERD_ADDRESS", def: "/run/containerd/containerd.sock", usage: "containerd's socket"},
		{name: "namespace", env: "CONTAINERD_NAMESPACE", def: "carboy", usage: "containerd namespace"},
		{name: "snapshotter", env: "CONTAINERD_SNAPSHOTTER", def: "overlayfs", usage: "containerd snapshotter"},
		{name: "cni-bin-dir", env: "CARBOY_CNI_BIN_DIR", usage: "directory of the CNI plugins (default the first of " + strings.Join(netns.PluginDirs(), ", ") + " that has them)"},
		{name: "state-dir", env: "CARBOY_STATE_DIR", def: "/run/carboy", usage: "directory of live bottles, on a tmpfs"},
		{name: "log-dir", env: "CARBOY_LOG_DIR", def: "/var/log/carboy", usage: "directory of the logs of bottles"},
		{name: "data-dir", env: "CARBOY_DATA_DIR", def: "/var/lib/carboy", usage: "directory of the records of the build cache"},
		{name: "log-level", env: "CARBOY_LOG_LEVEL", def: "warn", usage: "trace, debug, info, warn or error"},
		{name: "log-format", env: "CARBOY_LOG_FORMAT", def: "text", usage: "text or json"},
		{name: "egress-range", env: "CARBOY_EGRESS_RANGE", usage: "address range of the proxies' links to the host (default the first of a few that is free)"},
		{name: "egress-network", env: "CARBOY_EGRESS_NETWORK", usage: "CNI network of yours for the proxies' links, by its name, instead of carboy's"},
		{name: "cni-conf-dir", env: "CARBOY_CNI_CONF_DIR", def: "/etc/cni/net.d", usage: "directory of CNI networks"},
		{name: "reserved-ranges", list: true, usage: "address ranges never to be used, such as a cluster's service addresses"},
		{name: "dns", list: true, usage: "resolvers the proxy asks (default the host's)"},
		{name: "registry-config", usage: "Docker configuration, a file or its directory, with the logins of registries (default $DOCKER_CONFIG, then ~/.docker of who calls, then root's)"},
		{name: "insecure-registry", list: true, usage: "registries, as host:port, spoken to by plain HTTP"},
		{name: "proxy", def: proxy.Pipelock}, // these two are flags of run
		{name: "proxy-image", def: proxy.PipelockImage},
		{name: restrictedGroups, list: true}, // of the file alone
	}
	root.PersistentFlags().SortFlags = false
	for _, o := range s.all {
		switch {
		case o.usage == "": // no flag, or one of one command
		case o.list:
			root.PersistentFlags().StringSlice(o.name, nil, o.usage)
		default:
			root.PersistentFlags().String(o.name, o.def, o.usage)
		}
	}
}

// admit reads the file, and refuses what who calls may not do before anything
// else is done.
func (s *settings) admit(c *cobra.Command) (file map[string]string, err error) {
	if file, err = readConfig(configFile, s.names()); err != nil {
		return nil, err
	}
	if s.held, err = s.restrict(c.Context(), splitList(file[restrictedGroups])); err != nil {
		return nil, err
	}
	return file, s.held.hold(c)
}

// load settles every option and sets up logging.
func (s *settings) load(c *cobra.Command) error {
	file, err := s.admit(c)
	if err != nil {
		return err
	}
	for _, o := range s.all {
		o.settle(c.Flags().Lookup(o.name), file)
	}
	s.quiet, _ = c.Flags().GetBool("quiet") // an error without one
	if err := log.SetLevel(s.get("log-level")); err != nil {
		return s.refuse("log-level", "choose trace, debug, info, warn or error")
	}
	if err := log.SetFormat(log.OutputFormat(s.get("log-format"))); err != nil {
		return s.refuse("log-format", "choose text or json")
	}
	return nil
}

// refuse names the value, and where it comes from.
func (s *settings) refuse(name, why string) error {
	o := s.find(name)
	return fmt.Errorf("%s %q (%s): %s: %w", name, o.value, o.source, why, errdefs.ErrInvalidArgument)
}

func (o *setting) settle(flag *pflag.Flag, file map[string]string) {
	o.value, o.source = o.def, "default"
	if v, ok := file[o.name]; ok {
		o.value, o.source = v, configFile
	}
	if v, ok := os.LookupEnv(o.env); o.env != "" && ok && v != "" {
		o.value, o.source = v, "$"+o.env
	}
	if flag != nil && flag.Changed {
		o.value, o.source = flag.Value.String(), "--"+o.name
		if slice, ok := flag.Value.(pflag.SliceValue); ok {
			o.value = strings.Join(slice.GetSlice(), ",")
		}
	}
}

func (s *settings) find(name string) *setting {
	for _, o := range s.all {
		if o.name == name {
			return o
		}
	}
	return nil
}

func (s *settings) get(name string) string { return s.find(name).value }

// given says whether a flag of this command line set the option.
func (s *settings) given(name string) bool { return s.find(name).source == "--"+name }

func (s *settings) list(name string) []string {
	return splitList(s.get(name))
}

func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// lookup finds a variable of who calls, for his agent.
func (s *settings) lookup(name string) (string, bool) {
	if s.held != nil {
		return s.held.lookup(name)
	}
	return os.LookupEnv(name)
}

// environ is what a further carboy of who calls starts with.
func (s *settings) environ() []string {
	if s.held != nil {
		return s.held.given
	}
	return os.Environ()
}

// manifestDirs are those in which who calls may find agents.
func (s *settings) manifestDirs(who invoker.User, project string) []manifest.Dir {
	if s.held != nil {
		return s.held.dirs()
	}
	return manifestDirs(who, project)
}

func (s *settings) names() []string {
	var names []string
	for _, o := range s.all {
		names = append(names, o.name)
	}
	slices.Sort(names)
	return names
}

// host connects to containerd. The caller closes it.
func (s *settings) host(ctx context.Context) (*runtime.Host, error) {
	config, err := s.config()
	if err != nil {
		return nil, err
	}
	defer awaiting(s.quiet, func() string { return "waiting for containerd at " + config.Address }).Close()
	return runtime.Open(ctx, config)
}

func (s *settings) config() (config runtime.Config, err error) {
	config = runtime.Config{
		// containerd's and others' tools take it as a URL, too.
		Address: strings.TrimPrefix(s.get("address"), "unix://"), Namespace: s.get("namespace"), Snapshotter: s.get("snapshotter"),
		StateDir: s.get("state-dir"), LogDir: s.get("log-dir"), DataDir: s.get("data-dir"), Registries: registry.Access{Insecure: s.list("insecure-registry"), Logins: &registry.Logins{Sources: s.logins}},
		PluginDir: s.get("cni-bin-dir"),
	}
	if s.held != nil {
		config.OnlyOf = &s.held.who.UID
	}
	if config.Libexec, err = installedDir("libexec"); err != nil {
		return config, err
	}
	if config.DNS, err = parseAll(s, "dns", netip.ParseAddr); err != nil {
		return config, err
	}
	if config.Reserved, err = parseAll(s, "reserved-ranges", netip.ParsePrefix); err != nil {
		return config, err
	}
	ranges, err := parseAll(s, "egress-range", netip.ParsePrefix)
	if err != nil {
		return config, err
	}
	if len(ranges) > 0 {
		config.Range = ranges[0]
	}
	return config, s.checkPaths()
}

func (s *settings) checkPaths() error {
	for _, name := range []string{"address", "cni-bin-dir", "cni-conf-dir", "state-dir", "log-dir", "data-dir"} {
		if path := strings.TrimPrefix(s.get(name), "unix://"); path != "" && !filepath.IsAbs(path) {
			return s.refuse(name, "give an absolute path")
		}
	}
	return nil
}

// findPlugins settles the directory of the CNI plugins and the operator's own
// network, which only bringing up a bottle needs.
func (s *settings) findPlugins(h *runtime.Host) (err error) {
	if h.PluginDir, err = netns.FindPlugins(s.pluginDirs()); err != nil {
		return err
	}
	if name := s.get("egress-network"); name != "" {
		h.Conflist, err = netns.OperatorNetwork(s.get("cni-conf-dir"), name)
	}
	return err
}

func (s *settings) pluginDirs() []string {
	if dir := s.get("cni-bin-dir"); dir != "" {
		return []string{dir}
	}
	return netns.PluginDirs()
}

func parseAll[T any](s *settings, name string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, text := range s.list(name) {
		v, err := parse(text)
		if err != nil {
			return nil, s.refuse(name, err.Error())
		}
		out = append(out, v)
	}
	return out, nil
}

// installedDir is carboy's own directory of a kind, beside that of this binary:
// PREFIX/bin/carboy and PREFIX/libexec/carboy.
func installedDir(kind string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(filepath.Dir(self)), kind, "carboy"), nil
}

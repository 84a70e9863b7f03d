package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"carboy/netns"
	"carboy/runtime"
)

// configFile is root's; its keys are the long names of the global flags, and
// of those of run that an operator may set for all.
const configFile = "/etc/carboy/config.yaml"

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
	all []*setting
}

func (s *settings) register(root *cobra.Command) {
	s.all = []*setting{
		{name: "address", env: "CONTAINERD_ADDRESS", def: "/run/containerd/containerd.sock", usage: "containerd's socket"},
		{name: "namespace", env: "CONTAINERD_NAMESPACE", def: "carboy", usage: "containerd namespace"},
		{name: "snapshotter", env: "CONTAINERD_SNAPSHOTTER", def: "overlayfs", usage: "containerd snapshotter"},
		{name: "cni-bin-dir", env: "CARBOY_CNI_BIN_DIR", usage: "directory of the CNI plugins (default the first of " + strings.Join(pluginDirs, ", ") + " that has them)"},
		{name: "state-dir", env: "CARBOY_STATE_DIR", def: "/run/carboy", usage: "directory of live bottles, on a tmpfs"},
		{name: "log-dir", env: "CARBOY_LOG_DIR", def: "/var/log/carboy", usage: "directory of the logs of bottles"},
		{name: "log-level", env: "CARBOY_LOG_LEVEL", def: "warn", usage: "trace, debug, info, warn or error"},
		{name: "log-format", env: "CARBOY_LOG_FORMAT", def: "text", usage: "text or json"},
		{name: "egress-range", env: "CARBOY_EGRESS_RANGE", usage: "address range of the proxies' links to the host (default the first of a few that is free)"},
		{name: "reserved-ranges", list: true, usage: "address ranges never to be used, such as a cluster's service addresses"},
		{name: "dns", list: true, usage: "resolvers the proxy asks (default the host's)"},
		{name: "insecure-registry", list: true, usage: "registries, as host:port, spoken to by plain HTTP"},
		{name: "proxy", usage: "default proxy engine, pipelock or allowlist"},
		{name: "proxy-image", usage: "default image of pipelock; end it in @sha256:... to pin it"},
	}
	root.PersistentFlags().SortFlags = false
	for _, o := range s.all {
		if o.name == "proxy" || o.name == "proxy-image" {
			continue // flags of run
		}
		if o.list {
			root.PersistentFlags().StringSlice(o.name, nil, o.usage)
		} else {
			root.PersistentFlags().String(o.name, o.def, o.usage)
		}
	}
}

// load settles every option and sets up logging.
func (s *settings) load(c *cobra.Command) error {
	file, err := readConfig(configFile)
	if err != nil {
		return err
	}
	for name := range file {
		if s.find(name) == nil {
			return fmt.Errorf("%s: unknown key %q: known are %s: %w", configFile, name, strings.Join(s.names(), ", "), errdefs.ErrInvalidArgument)
		}
	}
	for _, o := range s.all {
		o.settle(c.Flags().Lookup(o.name), file)
	}
	return setLogging(s.get("log-level"), s.get("log-format"))
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

func (s *settings) list(name string) []string {
	return strings.FieldsFunc(s.get(name), func(r rune) bool { return r == ',' })
}

func (s *settings) names() []string {
	var names []string
	for _, o := range s.all {
		names = append(names, o.name)
	}
	slices.Sort(names)
	return names
}

// readConfig returns the file's values as text; a missing file is empty.
func readConfig(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(b)) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var raw map[string]any
	if err := yaml.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	values := map[string]string{}
	for name, v := range raw {
		if list, ok := v.([]any); ok {
			var items []string
			for _, item := range list {
				items = append(items, fmt.Sprint(item))
			}
			v = strings.Join(items, ",")
		}
		values[name] = fmt.Sprint(v)
	}
	return values, nil
}

// pluginDirs are where distributions put CNI plugins.
var pluginDirs = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}

// host connects to containerd. The caller closes it.
func (s *settings) host() (*runtime.Host, error) {
	config := runtime.Config{
		Address: s.get("address"), Namespace: s.get("namespace"), Snapshotter: s.get("snapshotter"),
		StateDir: s.get("state-dir"), LogDir: s.get("log-dir"), Insecure: s.list("insecure-registry"),
		PluginDir: s.get("cni-bin-dir"),
	}
	var err error
	if config.Libexec, err = libexecDir(); err != nil {
		return nil, err
	}
	if config.DNS, err = parseAll(s.list("dns"), "dns", netip.ParseAddr); err != nil {
		return nil, err
	}
	if config.Reserved, err = parseAll(s.list("reserved-ranges"), "reserved-ranges", netip.ParsePrefix); err != nil {
		return nil, err
	}
	if r := s.get("egress-range"); r != "" {
		ranges, err := parseAll([]string{r}, "egress-range", netip.ParsePrefix)
		if err != nil {
			return nil, err
		}
		config.Range = ranges[0]
	}
	for _, dir := range []string{config.StateDir, config.LogDir} {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("directory %q: give an absolute path: %w", dir, errdefs.ErrInvalidArgument)
		}
	}
	return runtime.Open(config)
}

// findPlugins settles the directory of the CNI plugins, which only bringing up
// a bottle needs.
func (s *settings) findPlugins(h *runtime.Host) (err error) {
	dirs := pluginDirs
	if dir := s.get("cni-bin-dir"); dir != "" {
		dirs = []string{dir}
	}
	h.PluginDir, err = netns.FindPlugins(dirs)
	return err
}

func parseAll[T any](texts []string, what string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, text := range texts {
		v, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", what, err, errdefs.ErrInvalidArgument)
		}
		out = append(out, v)
	}
	return out, nil
}

// libexecDir stands beside the directory of this binary: PREFIX/bin/carboy and
// PREFIX/libexec/carboy.
func libexecDir() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(filepath.Dir(self)), "libexec", "carboy"), nil
}

package runtime

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"carboy/image"
	"carboy/runtime/manifest"
	"carboy/runtime/manifest/presets"
	"carboy/runtime/provision"
	"carboy/runtime/proxy"
	"carboy/runtime/proxy/policy"
	"carboy/runtime/skill"
)

// DefaultUser runs an agent whose image names no user, or root: root is only
// for those who ask for it.
const DefaultUser = "1000:1000"

// Request is what was asked for on a command line, and the manifests that were
// found for it.
type Request struct {
	Agent  *manifest.Agent // nil without one
	Bottle *manifest.Bottle

	Name        string // pinned
	Image       string
	Command     []string
	Allow       []string
	Presets     []string
	Intercept   []string // allowed as well
	DLP         string
	Env         []string // NAME=VALUE, or NAME to forward
	EnvFile     []string // the same, before Env; its values are secret
	Secrets     []string // NAME=FILE, NAME=fd:NUMBER or NAME=credential:NAME
	User        string
	Workdir     string
	Runtime     string
	Engine      string
	ProxyImage  string
	ProxyBinary string
	Memory      string
	CPUs        float64
	Pids        int64
	Disk        string
	Workspace   WorkspacePlan // no directory, no workspace
	Mounts      []string      // SOURCE:TARGET, with :rw where the agent may write
	Gate        bool          // the agent starts when every probe has passed
	TTY         bool
	Stdin       bool

	Provider      string
	Model         string
	Task          string
	RemoteControl bool
	Skills        []skill.Skill // that the agent's manifest names

	// Lookup finds a variable of the caller's environment.
	Lookup func(name string) (string, bool)
	// Stored finds a login that the caller has stored, empty without one.
	Stored func(name string) (string, error)
}

// Plan is a bottle that could be brought up. It is made without looking at
// anything but the request, and can be printed; values of variables are not
// part of what is printed.
type Plan struct {
	Agent     string         `json:"agent,omitempty"`
	Source    string         `json:"source,omitempty"`  // of the agent
	Project   bool           `json:"project,omitempty"` // which a project brought
	Bottle    *BottlePlan    `json:"bottle,omitempty"`
	Name      string         `json:"name"`
	Pinned    bool           `json:"pinned"`
	Image     string         `json:"image"`
	Build     *BuildPlan     `json:"build,omitempty"` // makes the image first
	Command   []string       `json:"command"`         // empty: the image's
	User      string         `json:"user"`            // empty: the image's, or DefaultUser
	Workdir   string         `json:"workdir"`         // empty: the image's
	Runtime   string         `json:"runtime"`         // auto, runc or runsc
	Proxy     ProxyPlan      `json:"proxy"`
	Env       []string       `json:"env"`               // names
	Secrets   []string       `json:"secrets,omitempty"` // names of files
	Allow     []string       `json:"allow"`
	Private   []string       `json:"private"`
	Intercept []string       `json:"intercept"`     // those of Allow whose TLS the proxy opens
	DLP       string         `json:"dlp,omitempty"` // block or warn; empty for an engine that reads no content
	Limits    PlanLimits     `json:"limits"`
	Workspace *WorkspacePlan `json:"workspace,omitempty"`
	Mounts    []MountPlan    `json:"mounts,omitempty"`
	Gate      bool           `json:"gate"`
	TTY       bool           `json:"tty"`
	Stdin     bool           `json:"stdin"`
	Git       *provision.Git `json:"git,omitempty"`
	SSH       []SSHPlan      `json:"ssh,omitempty"`

	Provider    string   `json:"provider"`
	Login       string   `json:"login,omitempty"` // the variable that logs the provider's program in
	Model       string   `json:"model,omitempty"`
	Permissions string   `json:"permissions,omitempty"`
	Skills      []string `json:"skills"`
	HasPrompt   bool     `json:"prompt"`
	HasTask     bool     `json:"task"`
	// RemoteControl lets the conversation be driven from elsewhere.
	RemoteControl bool `json:"remoteControl"`

	env         map[string]string
	secret      map[string]bool   // names of variables whose values must not get out
	secretFiles map[string][]byte // by name, in /run/secrets
	pending     []Secret
	policy      policy.Policy
	// interceptAll is for hosts that say nothing themselves.
	interceptAll bool
	provision    provision.Agent
}

// BottlePlan is which manifests say what the agent may do.
type BottlePlan struct {
	Name    string   `json:"name"`
	Source  string   `json:"source"`
	Parents []string `json:"parents,omitempty"` // the files that it extends
}

// Prompt is the agent's system prompt.
func (p *Plan) Prompt() string { return p.provision.Prompt }

// ProxyPlan is which engine is used and where it comes from.
type ProxyPlan struct {
	Engine string `json:"engine"`
	Image  string `json:"image,omitempty"`
	Binary string `json:"binary,omitempty"`
}

// NewPlan checks a request. Its errors are of class errdefs.ErrInvalidArgument.
func NewPlan(r Request) (*Plan, error) {
	a, b := manifest.Agent{}, manifest.Bottle{}
	if r.Agent != nil {
		a, b = *r.Agent, *r.Bottle
	}
	p := &Plan{
		Agent: a.Name, Source: a.Source, Project: a.Project,
		User:    cmp.Or(r.User, b.User),
		Workdir: cmp.Or(r.Workdir, b.Workdir),
		Runtime: cmp.Or(r.Runtime, b.Runtime, "auto"),
		Gate:    r.Gate || b.Gate,
		TTY:     r.TTY, Stdin: r.Stdin,
		Command: r.Command,
	}
	if len(p.Command) == 0 {
		p.Command = a.Command
	}
	if b.Source != "" {
		p.Bottle = &BottlePlan{Name: b.Name, Source: b.Source, Parents: b.Parents}
	}
	for _, step := range []func() error{
		func() error { return p.setBuild(r, b) },
		func() error {
			return ifWritten(r.Image == "", a.At("bottle")).Fault(p.setImage(cmp.Or(r.Image, b.Image)))
		},
		func() error { return p.setName(r.Name) },
		func() error { return p.setEnv(r, a, b) },
		func() error { return p.setProvider(r, a) },
		func() error { return p.setGit(b) },
		func() error { return p.setSSH(b) },
		func() error { return p.setPolicy(b, r) },
		func() error { return p.setProxy(r, b.Proxy) },
		func() error { return p.setScanning(r, b) },
		func() error { return p.setLimits(r, b) },
		func() error { return p.setWorkspace(r.Workspace, b.Workspace) },
		func() error { return p.setMounts(r, b) },
		p.check,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// ifWritten is where something is, if it is in a manifest.
func ifWritten(is bool, at manifest.Place) manifest.Place {
	if !is {
		return manifest.Place{}
	}
	return at
}

func (p *Plan) setImage(ref string) error {
	if p.Build != nil {
		ref = p.Build.Image
	}
	if ref == "" {
		return invalid("no image: name an agent whose bottle has an image or a build, or use --image")
	}
	name, err := image.Normalize(ref)
	p.Image = name
	return err
}

// bottleName keeps socket paths, containerd ids and terminals safe.
var bottleName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

func (p *Plan) setName(pinned string) error {
	if pinned != "" {
		if !bottleName.MatchString(pinned) {
			return invalid("name %q: use lower-case letters, digits and '-', at most 40", pinned)
		}
		if pinned == "carboy" {
			return invalid("name %q: choose another: in a journal, an agent's lines have its bottle's name and carboy's own have that", pinned)
		}
		p.Name, p.Pinned = pinned, true
		return nil
	}
	base := p.Agent
	if base == "" {
		named, err := reference.ParseDockerRef(p.Image)
		if err != nil {
			return err
		}
		base = reference.Path(named)
		base = base[strings.LastIndexByte(base, '/')+1:]
	}
	safe := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(base), "-"), "-")
	p.Name = strings.TrimRight(safe[:min(len(safe), 36)], "-") // room for -99
	return nil
}

func (p *Plan) setPolicy(b manifest.Bottle, r Request) error {
	listed, err := presetHosts(slices.Concat(b.Egress.Presets, r.Presets))
	if err != nil {
		return err
	}
	var own []string
	for _, a := range b.Egress.Allow {
		own = append(own, a.Host)
	}
	for i, host := range slices.Concat(own, listed, r.Allow, r.Intercept) {
		pattern, err := policy.ParsePattern(host)
		if err != nil {
			return inEgress(i < len(own), b.At("egress", "allow", host), invalid("%w", err))
		}
		p.policy.Allow = append(p.policy.Allow, pattern)
		p.Allow = append(p.Allow, pattern.String())
	}
	for _, s := range b.Egress.Private {
		prefix, err := policy.ParsePrefix(s)
		if err != nil {
			return inEgress(true, b.At("egress", "private", s), invalid("%w", err))
		}
		p.policy.Private = append(p.policy.Private, prefix)
		p.Private = append(p.Private, prefix.String())
	}
	p.Allow, p.Private = sortedSet(p.Allow), sortedSet(p.Private)
	return nil
}

func presetHosts(names []string) (hosts []string, err error) {
	for _, name := range names {
		preset, ok := presets.Find(name)
		if !ok {
			known := presets.Names()
			return nil, invalid("no preset %q%s: known are %s", name, manifest.Suggest(name, known), strings.Join(known, ", "))
		}
		for _, h := range preset.Hosts {
			hosts = append(hosts, h.Host)
		}
	}
	return hosts, nil
}

func sortedSet(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func (p *Plan) setProxy(r Request, m manifest.Proxy) error {
	p.Proxy = ProxyPlan{Engine: cmp.Or(r.Engine, m.Engine, proxy.Pipelock), Binary: r.ProxyBinary}
	if p.Proxy.Engine != proxy.Pipelock && p.Proxy.Engine != proxy.Allowlist {
		return invalid("proxy engine %q: choose %s or %s", p.Proxy.Engine, proxy.Pipelock, proxy.Allowlist)
	}
	if p.Proxy.Engine == proxy.Allowlist {
		if r.ProxyImage != "" || r.ProxyBinary != "" {
			return invalid("--proxy-image and --proxy-binary are for pipelock: the allowlist engine comes with carboy")
		}
		return nil
	}
	if p.Proxy.Binary != "" {
		if r.ProxyImage != "" {
			return invalid("--proxy-image and --proxy-binary exclude each other")
		}
		return nil
	}
	name, err := image.Normalize(cmp.Or(r.ProxyImage, m.Image, proxy.PipelockImage))
	p.Proxy.Image = name
	return err
}

func (p *Plan) check() error {
	if !slices.Contains([]string{"auto", "runc", "runsc"}, p.Runtime) {
		return invalid("runtime %q: choose auto, runc or runsc", p.Runtime)
	}
	if p.Workdir != "" {
		if err := manifest.CheckDirectory(p.Workdir); err != nil {
			return invalid("working directory %w", err)
		}
	}
	for _, list := range []*[]string{&p.Command, &p.Env, &p.Allow, &p.Private, &p.Intercept, &p.Skills} {
		if *list == nil {
			*list = []string{} // JSON readers want [] and not null
		}
	}
	return nil
}

// names are what the bottle may be called, in order.
func (p *Plan) names() []string {
	names := []string{p.Name}
	if p.Pinned {
		return names
	}
	for i := 2; i <= 99; i++ {
		names = append(names, fmt.Sprintf("%s-%d", p.Name, i))
	}
	return names
}

// Package manifest reads what an operator, a user or a project wrote down about
// agents and bottles: agents/NAME.md (YAML front matter, the body is the
// prompt) and bottles/NAME.yaml. It says what is asked for; what is granted is
// the plan's.
//
// The types here are the format: the decoder and the JSON Schema both read
// their tags. `yaml` is the key, `doc` what it means, `enum` and `form` what its
// value has to be, `keys` and `values` what a
// mapping's have to be, `required` says that
// it must be there, `extend:"own"` that it is not inherited.
package manifest

// Agent is agents/NAME.md.
type Agent struct {
	Name        string            `yaml:"-"`
	Source      string            `yaml:"-"` // the file it was read from
	Project     bool              `yaml:"-"` // a project brought it: nobody who is trusted wrote it
	Prompt      string            `yaml:"-"`
	places      places            `yaml:"-"`
	Bottle      string            `yaml:"bottle" required:"yes" form:"name" doc:"Name of the bottle it lives in."`
	Provider    string            `yaml:"provider" enum:"claude|codex|generic" doc:"What kind of agent it is; generic by default."`
	Model       string            `yaml:"model" doc:"Model to use, by the provider's name of it."`
	Permissions string            `yaml:"permissions" doc:"The provider's word for what it may do unasked; by default it asks for nothing."`
	Command     []string          `yaml:"command" doc:"Program and arguments, instead of the provider's or the image's."`
	Args        []string          `yaml:"args" doc:"Arguments after the provider's own."`
	Skills      []string          `yaml:"skills" form:"skill" doc:"Names of directories with skills."`
	Env         map[string]string `yaml:"env" keys:"variable" values:"value" doc:"Environment: a value as it is, ${NAME} from the caller's, ?TEXT asked on the terminal, or credential:NAME from systemd."`
}

// Bottle is bottles/NAME.yaml: what an agent in it may do.
type Bottle struct {
	Name      string            `yaml:"-"`
	Source    string            `yaml:"-"` // the file it was read from
	Parents   []string          `yaml:"-"` // the files it extends, the nearest first
	places    places            `yaml:"-"`
	Extends   Names             `yaml:"extends" form:"name" extend:"own" doc:"Bottles to start from: one name, or a list in which later ones win."`
	Projects  bool              `yaml:"projects" extend:"own" doc:"An agent that a project brings may name this bottle."`
	Image     string            `yaml:"image" form:"image" doc:"Image of the agent."`
	User      string            `yaml:"user" doc:"User in the image, by name or number, with an optional :group."`
	Workdir   string            `yaml:"workdir" form:"directory" doc:"Working directory in the image."`
	Gate      bool              `yaml:"gate" doc:"The agent starts only when every probe of carboy verify has passed."`
	Runtime   string            `yaml:"runtime" enum:"auto|runc|runsc" doc:"Container runtime."`
	Env       map[string]string `yaml:"env" keys:"variable" values:"value" doc:"Environment: a value as it is, ${NAME} from the caller's, ?TEXT asked on the terminal, or credential:NAME from systemd."`
	Secrets   map[string]string `yaml:"secrets" keys:"file" values:"reference" doc:"Files in /run/secrets: ${NAME}, ?TEXT or credential:NAME, as in env."`
	Egress    Egress            `yaml:"egress" doc:"Where the proxy connects to for the agent."`
	Proxy     Proxy             `yaml:"proxy" doc:"The engine of the proxy."`
	Limits    Limits            `yaml:"limits" doc:"Bounds of the agent's container."`
	Workspace Workspace         `yaml:"workspace" doc:"Where a project appears, and how."`
	Mounts    []Mount           `yaml:"mounts" doc:"Files and directories of the host that the agent sees."`
	Build     *Build            `yaml:"build" doc:"How the image is made before each start, instead of taking one."`
	Git       Git               `yaml:"git" doc:"What git in the bottle is told."`
	SSH       []SSH             `yaml:"ssh" doc:"Hosts that the agent reaches by ssh. Keys stay outside."`
}

// Mount is a file or directory of the host that the agent sees. Relative
// sources start at the manifest, and are absolute once it has been read.
type Mount struct {
	Source   string `yaml:"source" required:"yes" form:"source" doc:"Path on the host: absolute, from ~/, or from the manifest."`
	Target   string `yaml:"target" required:"yes" form:"target" doc:"Path in the container."`
	Writable bool   `yaml:"writable" doc:"The agent may change it."`
}

func (m Mount) key() string { return m.Target }

// Names is a list of names that may be written as one.
type Names []string

func (n *Names) setText(text string) { *n = Names{text} }

// Git is what git in the bottle is told.
type Git struct {
	Name      string            `yaml:"name" form:"identity" doc:"user.name."`
	Email     string            `yaml:"email" form:"identity" doc:"user.email."`
	InsteadOf map[string]string `yaml:"instead-of" keys:"address" values:"address" doc:"URL that is used, for the prefix that is written."`
}

// SSH is a host that the agent may reach by ssh. The key stays outside.
type SSH struct {
	Host       string   `yaml:"host" required:"yes" form:"host" doc:"Host as the agent writes it."`
	HostName   string   `yaml:"hostname" form:"host" doc:"Where it is, if not there."`
	Port       uint16   `yaml:"port" doc:"Port, 22 by default."`
	User       string   `yaml:"user" form:"login" doc:"User there."`
	Key        string   `yaml:"key" doc:"File of the private key, or agent:COMMENT or agent:FINGERPRINT for one of the caller's ssh-agent; agent, or none, is the only one there."`
	KnownHosts []string `yaml:"known-hosts" form:"hostkey" doc:"Public keys of the host, as \"ssh-ed25519 AAAA...\"."`
}

func (s SSH) key() string { return s.Host }

// Build is how the image is made that the agent gets: before each start, which
// costs little where nothing has changed. Relative paths start at the manifest,
// and are absolute once it has been read.
type Build struct {
	Context    string            `yaml:"context" required:"yes" doc:"Directory to build from; a relative path starts at the manifest."`
	Dockerfile string            `yaml:"dockerfile" doc:"Dockerfile, from the context."`
	Target     string            `yaml:"target" doc:"Stage to stop at."`
	Args       map[string]string `yaml:"args" doc:"Build arguments."`
	Network    string            `yaml:"network" enum:"egress|none|host" doc:"Network of RUN."`
}

// Workspace is where a project appears, and how. Which one is the caller's to
// say.
type Workspace struct {
	Target string `yaml:"target" form:"target" doc:"Path in the container, /workspace by default."`
	Mode   string `yaml:"mode" enum:"copy|overlay|bind" doc:"A copy, the live directory below changes, or the live directory."`
}

// Egress is where the proxy may connect to for the agent.
type Egress struct {
	Allow   []Allowed `yaml:"allow" form:"pattern" doc:"Hosts: exact, *.example.com, with :PORT, or tcp:HOST:PORT."`
	Presets []string  `yaml:"presets" form:"preset" doc:"Lists of hosts that carboy knows."`
	Private []string  `yaml:"private" form:"private" doc:"Private addresses or prefixes that may be reached."`
	DLP     string    `yaml:"dlp" enum:"block|warn" doc:"What pipelock does about secrets on their way out."`
	TLS     string    `yaml:"tls" enum:"intercept|passthrough" doc:"Of the hosts that say nothing themselves."`
}

// Allowed is a host pattern, written as text alone or as {host, tls}.
type Allowed struct {
	Host string `yaml:"host" required:"yes" form:"pattern" doc:"Host: exact, *.example.com, with :PORT, or tcp:HOST:PORT."`
	TLS  string `yaml:"tls" enum:"intercept|passthrough" doc:"Whether the proxy looks inside."`
}

func (a Allowed) key() string { return a.Host }

func (a *Allowed) setText(text string) { a.Host = text }

// Proxy chooses the engine.
type Proxy struct {
	Engine string `yaml:"engine" enum:"pipelock|allowlist" doc:"pipelock scans content, allowlist checks hosts only."`
	Image  string `yaml:"image" form:"image" doc:"Image of pipelock."`
}

// Limits bound the agent's container.
type Limits struct {
	Memory string  `yaml:"memory" form:"memory" doc:"As 512MiB or 8GiB."`
	CPUs   float64 `yaml:"cpus" doc:"Number of CPUs."`
	Pids   int64   `yaml:"pids" doc:"Number of processes and threads."`
	Disk   string  `yaml:"disk" form:"disk" doc:"What it may write to its root, as 20GiB."`
}

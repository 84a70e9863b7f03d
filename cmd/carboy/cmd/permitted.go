package cmd

// permitted is all that members of a restricted group can do through sudo: the
// commands, by what follows carboy, each with its flags. What is not in it is
// refused, so a new command or flag is until somebody has thought of them.
//
// Each works on an agent of the operator's, on the member's own bottles, or on
// files that are opened with his rights. No flag in it names a file, a host, a
// user or where carboy's own things are, nor widens what a manifest says.
var permitted = map[string][]string{
	"":    nil, // prints what there is
	"run": {"name", "prompt", "headless", "env", "cwd", "tty", "interactive", "detach", "yes", "dry-run", "format"},

	"agents": {"json", "format", "quiet"},
	"info":   {"json"},
	"login":  {"stdin"},
	"logout": nil,

	"ls":      {"all", "json", "format", "quiet"},
	"inspect": nil,
	"top":     {"json", "format", "quiet"},
	"stats":   {"no-stream", "json", "format"},
	"logs":    {"follow", "tail", "since", "timestamps", "proxy", "json"},
	"attach":  {"detach-keys", "no-stdin", "read-only"},
	"exec":    {"tty", "interactive", "workdir", "env"},
	"wait":    nil,
	"stop":    {"time", "all"},
	"kill":    {"signal", "all"},
	"rm":      {"force"},
	"diff":    {"patch", "json"},
	"apply":   {"yes"},
	"cp":      nil,
}

// ownVariables are those that still mean something to carboy itself where it is
// restricted. The descriptors are of files that the caller has open; the socket
// is opened with his rights.
var ownVariables = []string{
	"SUDO_UID", "SUDO_GID", "TERM", "NO_COLOR", "SSH_AUTH_SOCK", supervisorVariable, secretsVariable,
}

// ownPath is where programs are looked for that run as root.
const ownPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

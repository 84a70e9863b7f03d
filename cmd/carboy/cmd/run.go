package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/image"
	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest/presets"
)

// runFlags are those of run that are not in the request.
type runFlags struct {
	runtime.Request
	envFile  string
	tty      string
	stdin    string
	yes      bool
	dryRun   bool
	format   string
	timings  bool
	keep     bool
	pull     string
	pulls    image.Policy // pull, checked
	noBuild  bool
	quiet    bool
	detach   bool
	restart  string
	restarts int
	timeout  time.Duration
	idle     time.Duration
	cwd      bool
	headless bool
	tasked   bool     // --prompt was given
	report   *os.File // of a background process: gets the name of the bottle whose command runs
}

func newRun(s *settings) *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "run [AGENT] [flags] [-- COMMAND ARG...]",
		Short: "Run an agent in a sealed bottle on this terminal",
		Long: `Bring up a bottle, run the agent's command in it on this terminal, take
everything down and exit with the command's exit code: 128 and the signal's
number for a signal, 126 and 127 for a command that cannot be run or found, 125
when carboy itself failed, 2 for a wrong request.

AGENT is agents/AGENT.md in ~/.config/carboy of the user who calls (also
through sudo), in /etc/carboy, among those that come with carboy (claude, codex),
or in .carboy of the project. Without one, name an image.`,
		Example: `  carboy run --image docker.io/library/busybox -- sh
  carboy run reviewer --allow api.example.com
  carboy run reviewer --dry-run --format json`,
		RunE: func(c *cobra.Command, args []string) error {
			agent, command, err := splitArgs(c, args)
			if err != nil {
				return err
			}
			f.Command, f.tasked = command, c.Flags().Changed("prompt")
			return f.run(c, s, agent)
		},
	}
	f.register(c)
	return c
}

func (f *runFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.Image, "image", "", "image of the agent")
	fl.StringVar(&f.pull, "pull", "", "when to pull images: missing, always or never (default missing)")
	fl.BoolVar(&f.noBuild, "no-build", false, "use the image of the last build, where the bottle's manifest has one built")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	fl.StringVar(&f.Name, "name", "", "name of the bottle; fails if it is taken (default AGENT, AGENT-2 ... AGENT-99)")
	fl.StringArrayVar(&f.Allow, "allow", nil, "host the agent may reach: exact, *.example.com, or with :PORT (repeatable)")
	fl.StringArrayVar(&f.Intercept, "intercept", nil, "allowed host whose TLS pipelock opens, with an authority of the bottle's own (repeatable)")
	fl.StringVar(&f.DLP, "dlp", "", "what pipelock does about secrets on their way out: block or warn (default block)")
	fl.StringArrayVar(&f.Presets, "preset", nil, "allow the hosts of a list that carboy knows: "+strings.Join(presets.Names(), ", ")+" (repeatable)")
	fl.String("proxy", "", "proxy engine: pipelock or allowlist (default pipelock)")
	fl.String("proxy-image", "", "image of pipelock")
	fl.StringVar(&f.ProxyBinary, "proxy-binary", "", "pipelock binary of this host, instead of an image")
	fl.StringVar(&f.Runtime, "runtime", "", "auto, runc or runsc (default auto: runsc where it works)")
	fl.StringVar(&f.Provider, "provider", "", "kind of agent: claude, codex or generic (default the agent's, else generic)")
	fl.StringVar(&f.Model, "model", "", "the provider's name of a model")
	fl.StringVarP(&f.Task, "prompt", "p", "", "`TASK` to do without a person, - for standard input; implies --headless")
	fl.BoolVar(&f.headless, "headless", false, "no terminal and no questions, also not before the start")
	fl.BoolVar(&f.RemoteControl, "remote-control", false, "let the conversation be driven from elsewhere (claude)")
	fl.StringArrayVarP(&f.Env, "env", "e", nil, "environment variable NAME=VALUE, or NAME to forward it (repeatable)")
	fl.StringVar(&f.envFile, "env-file", "", "file of NAME=VALUE lines")
	fl.StringArrayVar(&f.Secrets, "secret", nil, "value of a variable or secret, `NAME=FILE`, NAME=fd:NUMBER or NAME=credential:NAME of systemd (repeatable)")
	fl.StringVarP(&f.Workdir, "workdir", "w", "", "working directory in the image")
	fl.StringVarP(&f.User, "user", "u", "", "user in the image, as name or number, with an optional :group (default the image's, never root)")
	fl.StringVar(&f.Memory, "memory", "", "memory limit, as 512MiB (default half of the host's, at most 8GiB)")
	fl.Float64Var(&f.CPUs, "cpus", 0, "number of CPUs (default all)")
	fl.Int64Var(&f.Pids, "pids-limit", 0, "number of processes and threads (default 4096)")
	fl.StringVar(&f.Disk, "disk", "", "what the agent may write to its root, as 20GiB; more ends it (default 20GiB)")
	fl.BoolVar(&f.cwd, "cwd", false, "give the agent the current directory to work on: --workspace .")
	fl.StringVar(&f.Workspace.Directory, "workspace", "", "`DIR` to give the agent to work on")
	fl.StringVar(&f.Workspace.Mode, "workspace-mode", "", "`MODE`: copy, overlay (changes above the live directory) or bind (the live directory itself) (default copy)")
	fl.StringVar(&f.Workspace.Target, "workspace-target", "", "where it is in the container (default /workspace)")
	fl.StringArrayVarP(&f.Mounts, "mount", "v", nil, "`SOURCE:TARGET` shows a file or directory of yours, read-only unless :rw follows (repeatable)")
	tri(fl.VarPF, &f.tty, "tty", "t", "give the command a terminal (default as stdin and stdout are one)")
	tri(fl.VarPF, &f.stdin, "interactive", "i", "pass on standard input (default on)")
	fl.BoolVarP(&f.detach, "detach", "d", false, "run in the background and print the bottle's name")
	fl.StringVar(&f.restart, "restart", "no", "start a command that fails again: no, on-failure or on-failure:TIMES")
	fl.DurationVar(&f.timeout, "timeout", 0, "end a command that takes longer, as 2h, with status 124")
	fl.DurationVar(&f.idle, "idle-timeout", 0, "end a command that neither says nor transfers anything for that long, with status 124")
	fl.BoolVar(&f.Gate, "gate", false, "start the agent only when every probe of carboy verify has passed")
	fl.BoolVarP(&f.yes, "yes", "y", false, "do not ask before the start")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the plan and touch nothing")
	fl.StringVar(&f.format, "format", "text", "of --dry-run: text or json")
	fl.BoolVar(&f.timings, "timings", false, "print how long each step took")
	fl.BoolVar(&f.keep, "keep", false, "leave a failed bring-up standing for inspection, until carboy rm")
}

func splitArgs(c *cobra.Command, args []string) (agent string, command []string, err error) {
	named := args
	if dash := c.ArgsLenAtDash(); dash >= 0 {
		named, command = args[:dash], args[dash:]
	}
	if len(named) > 1 {
		return "", nil, fmt.Errorf("more than one agent: %q: put a command after --: %w", named, errdefs.ErrInvalidArgument)
	}
	if len(named) == 1 {
		agent = named[0]
	}
	return agent, command, nil
}

func (f *runFlags) run(c *cobra.Command, s *settings, agent string) error {
	start := time.Now()
	if f.format != "text" && f.format != "json" {
		return fmt.Errorf("format %q: choose text or json: %w", f.format, errdefs.ErrInvalidArgument)
	}
	if f.format == "json" && !f.dryRun {
		return fmt.Errorf("--format json needs --dry-run: %w", errdefs.ErrInvalidArgument)
	}
	if err := f.checkLimits(); err != nil {
		return err
	}
	var err error
	if f.pulls, err = image.ParsePolicy(f.pull); err != nil {
		return err
	}
	who, err := invoker.Current()
	if err != nil {
		return err
	}
	term := callersTerminal()
	plan, err := f.plan(s, who, agent, term)
	if err != nil {
		return err
	}
	if f.dryRun {
		return printPlan(c.OutOrStdout(), plan, f.format)
	}
	if f.report, err = inheritedFile(supervisorVariable); err != nil {
		return err
	}
	if f.report == nil {
		if err := errors.Join(f.checkTerminal(), checkSecrets(plan)); err != nil {
			return err
		}
	}
	return failedUnlessUsage(f.launch(c.Context(), s, who, plan, term, start))
}

// launch is everything from the host's side.
func (f *runFlags) launch(ctx context.Context, s *settings, who invoker.User, plan *runtime.Plan, term terminal, start time.Time) error {
	options := runtime.UpOptions{Invoker: who.UID, Keep: f.keep, Term: termVariable(), Pull: f.pulls}
	if f.restarts == 0 { // else the limit is of each time
		options.Bound = f.timeout
	}
	imager, err := s.held.imager(who)
	if err != nil {
		return err
	}
	var open sources
	defer open.shut()
	if err := open.open(plan, who, imager, !f.noBuild, &options); err != nil {
		return err
	}
	trace, err := newTrace(start)
	if err != nil {
		return err
	}
	host, err := s.host(ctx)
	if err != nil {
		return err
	}
	defer host.Close()
	host.Trace = trace
	ctx = host.Context(ctx)
	if err := f.settle(ctx, s, host, plan, &options); err != nil {
		return err
	}
	secrets, err := f.resolve(ctx, plan, who)
	if err != nil {
		return err
	}
	if options.Keys, err = secrets.openKeys(ctx, who, plan.SSH); err != nil {
		return err
	}
	if f.detach && f.report == nil {
		return detach(ctx, s.environ(), trace, secrets)
	}
	sweep(ctx, host)
	if plan.Build != nil && !f.noBuild {
		if options.Digest, err = f.build(ctx, host, plan.Build, imager, s.get("registry-config")); err != nil {
			return err
		}
	}
	return f.asService(ctx, plan.Name, func() error { return f.live(ctx, host, plan, options, term) })
}

// settle looks whether the host can have the bottle, chooses its runtime, and asks
// who started this.
func (f *runFlags) settle(ctx context.Context, s *settings, host *runtime.Host, plan *runtime.Plan, o *runtime.UpOptions) (err error) {
	if err := errors.Join(host.CheckReady(), s.findPlugins(host)); err != nil {
		return err
	}
	var note string
	o.Runsc, note, err = f.chooseRuntime(ctx, host, plan)
	if err != nil || f.report != nil { // it was confirmed where this process was started
		return err
	}
	return f.confirm(ctx, plan, *o, note)
}

// resolve fetches the plan's secrets, for a process in the background from the
// one that asked.
func (f *runFlags) resolve(ctx context.Context, plan *runtime.Plan, who invoker.User) (handed, error) {
	if f.report != nil {
		return receive(ctx, plan)
	}
	shown := plan.Unsearched()
	secrets, err := gather(ctx, plan, who)
	if more := slices.DeleteFunc(plan.Unsearched(), func(name string) bool { return slices.Contains(shown, name) }); len(more) > 0 {
		fmt.Fprintf(os.Stderr, "WARNING: dlp misses %s (%s)\n", strings.Join(more, " "), unsearchable)
	}
	return secrets, err
}

// build makes the agent's image and returns its digest.
func (f *runFlags) build(ctx context.Context, h *runtime.Host, plan *runtime.BuildPlan, who invoker.User, logins string) (string, error) {
	o := runtime.BuildOptions{Build: plan.Request(), Invoker: who, Environ: clientEnv(who), Stderr: os.Stderr}
	o.Quiet, o.Logins = f.quiet, logins
	var err error
	if o.Keep, err = parseSize(defaultCacheSize); err != nil {
		return "", err
	}
	return h.Build(ctx, o)
}

// checkLimits reads --restart and the limits of time.
func (f *runFlags) checkLimits() error {
	if f.timeout < 0 || f.idle < 0 {
		return fmt.Errorf("--timeout and --idle-timeout: give a time above zero, as 2h: %w", errdefs.ErrInvalidArgument)
	}
	policy, times, limited := strings.Cut(f.restart, ":")
	switch {
	case policy == "no" && !limited:
		return nil
	case policy == "on-failure" && !limited:
		f.restarts = -1 // for ever
		return nil
	case policy == "on-failure":
		n, err := strconv.ParseUint(times, 10, 31)
		f.restarts = int(n)
		if err == nil && n > 0 {
			return nil
		}
	}
	return fmt.Errorf("--restart %q: choose no, on-failure or on-failure:TIMES: %w", f.restart, errdefs.ErrInvalidArgument)
}

package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/manifest"
	"carboy/runtime/manifest/presets"
	"carboy/runtime/provision"
	"carboy/runtime/proxy"
)

// arguments are what completes those of each command that takes some.
func arguments(s *settings) map[string]cobra.CompletionFunc {
	var (
		run, live, known = offer(s, runningBottles), offer(s, bottles), offer(s, bottles, endedBottles)
		agent, img       = offer(s, agents), offer(s, images)
		provider         = oneOf(provision.Claude, provision.Codex)
	)
	return map[string]cobra.CompletionFunc{
		"run": inOrder(agent), "info": inOrder(agent), "edit": inOrder(agent), "init": inOrder(),
		"attach": inOrder(run), "exec": inOrder(run), "top": inOrder(run), "inspect": inOrder(live),
		"stop": every(run), "kill": every(run), "stats": every(run), "verify": every(run), "rm": every(known), "wait": every(known),
		"logs": inOrder(known), "audit show": inOrder(known), "audit verify": inOrder(known),
		"egress show": inOrder(run), "egress allow": inOrder(run), "egress deny": inOrder(run), "egress pause": inOrder(run),
		"egress resume": inOrder(run), "egress log": inOrder(known), "egress suggest": inOrder(known),
		"diff": inOrder(known), "apply": inOrder(known, directories),
		"cp": inOrder(orPath(known), orPath(known)), "commit": inOrder(run, img),
		"pull": inOrder(img), "image rm": every(img), "image export": every(img), "image import": inOrder(files),
		"build": inOrder(directories), "validate": files, "import": inOrder(files),
		"generate systemd": inOrder(offer(s, hostAgents)), "schema": inOrder(oneOf("agent", "bottle")), "login": inOrder(provider), "logout": inOrder(provider),
	}
}

// flagWords complete the values of flags, which mean the same wherever they are.
// Those of flags that are not here are files.
func flagWords(s *settings) map[string]cobra.CompletionFunc {
	words := map[string]cobra.CompletionFunc{
		"image": offer(s, images), "proxy-image": offer(s, images), "provider": oneOf(provision.Claude, provision.Codex, provision.Generic),
		"preset": oneOf(presets.Names()...), "runtime": oneOf("auto", "runc", "runsc"),
		"proxy": oneOf(proxy.Pipelock, proxy.Allowlist), "dlp": oneOf(proxy.Block, proxy.Warn),
		"workspace-mode": oneOf(runtime.ModeCopy, runtime.ModeOverlay, runtime.ModeBind),
		"pull":           oneOf("missing", "always", "never"), "restart": oneOf("no", "on-failure"),
		"log-level": oneOf("trace", "debug", "info", "warn", "error"), "log-format": oneOf("text", "json"),
		"progress": oneOf("auto", "plain", "tty", "json"), "network": oneOf("egress", "none", "host"),
		"signal": oneOf("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"), "tail": oneOf("all"),
		"platform": oneOf("linux/amd64", "linux/arm64"), "snapshotter": oneOf("overlayfs"),
	}
	for _, name := range []string{"workspace", "dest", "cni-bin-dir", "cni-conf-dir", "state-dir", "log-dir", "data-dir"} {
		words[name] = directories
	}
	for _, name := range []string{
		"allow", "build-arg", "build-cache-size", "cpus", "detach-keys", "disk", "dns", "egress-network", "egress-range", "env", "format",
		"idle-timeout", "insecure-registry", "intercept", "memory", "message", "model", "name", "namespace", "pids-limit", "prompt",
		"reserved-ranges", "since", "target", "time", "timeout", "user", "workdir", "workspace-target",
	} {
		words[name] = cobra.NoFileCompletions
	}
	return words
}

// ownFlagWords are those of flags that mean something of their own in a command.
func ownFlagWords(s *settings) map[string]map[string]cobra.CompletionFunc {
	return map[string]map[string]cobra.CompletionFunc{
		"run":   {"format": oneOf("text", "json")},
		"build": {"tag": offer(s, images)},
		"edit":  {"bottle": offer(s, bottleFiles)},
		"init":  {"bottle": offer(s, bottleFiles)},
	}
}

func withNames(ctx context.Context, s *settings, list func(context.Context, *runtime.Host) []string) []string {
	h, err := s.host(ctx)
	if err != nil {
		return nil
	}
	defer h.Close()
	return list(h.Context(ctx), h)
}

func bottles(ctx context.Context, s *settings, _ *cobra.Command) []string {
	return withNames(ctx, s, func(ctx context.Context, h *runtime.Host) (names []string) {
		list, _ := h.List(ctx) // it is good also with an error
		for _, b := range list {
			names = append(names, b.Name)
		}
		return names
	})
}

func runningBottles(ctx context.Context, s *settings, _ *cobra.Command) []string {
	return withNames(ctx, s, func(ctx context.Context, h *runtime.Host) []string {
		names, _ := running(ctx, h)
		return names
	})
}

// endedBottles needs no containerd.
func endedBottles(_ context.Context, s *settings, _ *cobra.Command) (names []string) {
	config, err := s.config()
	if err != nil {
		return nil
	}
	past, err := (&runtime.Host{Config: config}).Histories()
	if err != nil {
		return nil
	}
	for _, b := range past {
		names = append(names, b.Name)
	}
	return names
}

func images(ctx context.Context, s *settings, _ *cobra.Command) []string {
	return withNames(ctx, s, func(ctx context.Context, h *runtime.Host) (names []string) {
		list, err := h.Images.List(ctx)
		if err != nil {
			return nil
		}
		for _, img := range list {
			names = append(names, img.Ref)
		}
		return names
	})
}

func agents(_ context.Context, s *settings, c *cobra.Command) (names []string) {
	_ = withDirs(c, s, func(_ invoker.User, dirs []manifest.Dir) error {
		names = manifest.AgentNames(dirs)
		return nil
	})
	return names
}

func hostAgents(context.Context, *settings, *cobra.Command) []string {
	return manifest.AgentNames(hostDirs())
}

func bottleFiles(_ context.Context, s *settings, c *cobra.Command) (names []string) {
	_ = withDirs(c, s, func(_ invoker.User, dirs []manifest.Dir) error {
		names = manifest.BottleNames(dirs)
		return nil
	})
	return names
}

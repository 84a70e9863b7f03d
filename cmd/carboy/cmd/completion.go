package cmd

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completionTime is how long a shell waits for names. What comes later is left
// out.
const completionTime = 300 * time.Millisecond

// A source knows names of one kind. What it cannot reach it leaves out: nobody
// reads errors while typing.
type source func(ctx context.Context, s *settings, c *cobra.Command) []string

// complete gives every command and flag the names that can follow.
func complete(root *cobra.Command, s *settings) {
	words, flags, own := arguments(s), flagWords(s), ownFlagWords(s)
	eachCommand(root, func(c *cobra.Command) {
		path := commandPath(c)
		switch f, ok := words[path]; {
		case ok:
			c.ValidArgsFunction = f
		case c.Args != nil && c.Args(c, []string{"x"}) != nil && c.Args(c, []string{"x", "x"}) != nil:
			c.ValidArgsFunction = cobra.NoFileCompletions // it takes none
		}
		c.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			f, ok := own[path][flag.Name]
			if !ok {
				f, ok = flags[flag.Name]
			}
			if ok {
				_ = c.RegisterFlagCompletionFunc(flag.Name, f) // fails only for a flag that is not there
			}
		})
	})
}

func eachCommand(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, f)
	}
}

// offer completes a word with the names of sources.
func offer(s *settings, sources ...source) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return lookUp(c, s, begun, sources), cobra.ShellCompDirectiveNoFileComp
	}
}

func lookUp(c *cobra.Command, s *settings, begun string, sources []source) []string {
	if s.load(c) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionTime)
	defer cancel()
	found := make(chan []string, len(sources))
	for _, names := range sources {
		go func() { found <- names(ctx, s, c) }()
	}
	var names []string
	for range sources {
		select {
		case more := <-found:
			names = append(names, more...)
		case <-ctx.Done():
			return fitting(names, begun)
		}
	}
	return fitting(names, begun)
}

// fitting leaves out what a shell or terminal could take for something else:
// files of a project have any name.
func fitting(names []string, begun string) []string {
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool {
		return quote(name) != name || !strings.HasPrefix(name, begun)
	})
}

// inOrder completes each argument with its own function, and no more than that.
func inOrder(each ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) < len(each) {
			return each[len(args)](c, args, begun)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// every completes any number of arguments, each once.
func every(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, directive := f(c, args, begun)
		return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) }), directive
	}
}

// orPath completes NAME: and else a path of this host.
func orPath(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, _ := f(c, args, begun)
		for i := range names {
			names[i] += ":"
		}
		return names, cobra.ShellCompDirectiveNoSpace
	}
}

func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

func directories(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func files(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

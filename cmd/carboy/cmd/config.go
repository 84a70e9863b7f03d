package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/containerd/errdefs"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"

	"carboy/runtime/manifest"
)

// configFile is root's; its keys are the long names of the global flags, and
// of those of run that an operator may set for all.
const configFile = "/etc/carboy/config.yaml"

func newConfig(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the settings in force and where each comes from",
		Long: `Print the settings in force and where each comes from: a flag, the environment,
` + configFile + `, or the default. The file's keys are the names printed here.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
			for _, o := range s.all {
				_, _ = fmt.Fprintf(t, "%s\t%s\t(%s)\n", o.name, cmp.Or(o.value, "-"), o.source) // Flush tells
			}
			return t.Flush()
		},
	}
}

// readConfig returns the values of a file as text, lists with commas; a missing
// file is empty.
func readConfig(path string, known []string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	values, line, err := parseConfig(b, known)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w: %w", path, line, err, errdefs.ErrInvalidArgument)
	}
	return values, nil
}

// parseConfig is strict. An error is about the line.
func parseConfig(b []byte, known []string) (values map[string]string, line int, err error) {
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			return nil, at.GetToken().Position.Line, errors.New(at.GetMessage())
		}
		return nil, 1, err
	}
	values = map[string]string{}
	for i, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		mapping, ok := doc.Body.(*ast.MappingNode)
		if !ok || i > 0 {
			return nil, doc.Body.GetToken().Position.Line, errors.New("give keys and values, as in `proxy: allowlist`")
		}
		for _, entry := range mapping.Values {
			key := entry.Key.GetToken()
			if !slices.Contains(known, key.Value) {
				return nil, key.Position.Line, fmt.Errorf("unknown key %q%s: known are %s", key.Value, manifest.Suggest(key.Value, known), strings.Join(known, ", "))
			}
			if values[key.Value], err = configValue(entry.Value); err != nil {
				return nil, key.Position.Line, fmt.Errorf("%s: %w", key.Value, err)
			}
		}
	}
	return values, 0, nil
}

func configValue(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.SequenceNode:
		var items []string
		for _, item := range n.Values {
			text, err := configValue(item)
			if err != nil {
				return "", err
			}
			items = append(items, text)
		}
		return strings.Join(items, ","), nil
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	}
	return "", errors.New("give one value, or a list of values")
}

package cmd

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"carboy/runtime/initproto"
	"carboy/runtime/version"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,

		PersistentPreRunE: noSettings,
		RunE: func(c *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return errors.New("built without module information")
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "carboy %s %s (protocol %d)\n", version.Build, info.GoVersion, initproto.Version)
			return err
		},
	}
}

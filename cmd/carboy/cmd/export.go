package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"carboy/image"
	"carboy/runtime"
	"carboy/runtime/invoker"
)

func newImageExport(s *settings) *cobra.Command {
	var output, platform string
	c := &cobra.Command{
		Use:   "export REF... -o FILE",
		Short: "Write images to an archive (an OCI layout that docker load reads, too); - is standard output",
		Long: `Write images to an archive that is an OCI layout and that docker load reads, too.
The file is written with the rights of the user who calls, and appears whole or
not at all.`,
		Args: atLeastOne("an image"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return fmt.Errorf("name the archive with -o FILE, or -o - for standard output: %w", errdefs.ErrInvalidArgument)
			}
			if output == "-" && isTerminal(os.Stdout) {
				return fmt.Errorf("standard output is a terminal: redirect it, or name a file with -o: %w", errdefs.ErrInvalidArgument)
			}
			if _, err := image.Platform(platform); err != nil {
				return err
			}
			return awaited(c, s, "exporting "+strings.Join(args, " "), func(ctx context.Context, h *runtime.Host) error {
				return writeArchive(c.OutOrStdout(), output, func(w io.Writer) error {
					return h.Images.Export(ctx, args, platform, w)
				})
			})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write, - for standard output")
	c.Flags().StringVar(&platform, "platform", "", "os/arch[/variant] to export (default this host's)")
	return c
}

func writeArchive(stdout io.Writer, output string, write func(io.Writer) error) error {
	if output == "-" {
		return write(stdout)
	}
	who, err := invoker.Current()
	if err != nil {
		return err
	}
	file, err := who.Create(output)
	if err != nil {
		return fmt.Errorf("archive: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := write(file); err != nil {
		return errors.Join(err, file.Discard())
	}
	if err := file.Commit(); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

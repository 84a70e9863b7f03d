package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"carboy/image"
	"carboy/runtime"
	"carboy/runtime/invoker"
)

func newImage(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "List, remove, import, export and prune images",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newImageLs(s), newImageRm(s), newImageImport(s), newImageExport(s), newImagePrune(s))
	return c
}

func newImageImport(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Import images from an archive (docker save, or an OCI layout); - reads standard input",
		Args:  exactlyOne("an archive"),
		RunE: func(c *cobra.Command, args []string) error {
			archive, err := openArchive(args[0])
			if err != nil {
				return err
			}
			defer archive.Close()
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				images, err := h.Images.Import(ctx, archive)
				for _, img := range images {
					_, _ = fmt.Fprintln(c.OutOrStdout(), img.Ref)
				}
				return err
			})
		},
	}
}

// openArchive opens a file with the rights of who asks.
func openArchive(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	who, err := invoker.Current()
	if err != nil {
		return nil, err
	}
	f, err := who.Open(path)
	if err != nil {
		return nil, fmt.Errorf("archive: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return f, nil
}

func newImageLs(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List images",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				list, err := h.Images.List(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(c.OutOrStdout(), list)
				}
				return printImages(c.OutOrStdout(), list)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printImages(w io.Writer, list []image.Listed) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "IMAGE\tDIGEST\tSIZE") // Flush tells
	for _, img := range list {
		size := "?"
		if img.Size >= 0 {
			size = units.BytesSize(float64(img.Size))
		}
		_, _ = fmt.Fprintf(t, "%s\t%.19s\t%s\n", img.Ref, img.Digest, size)
	}
	return t.Flush()
}

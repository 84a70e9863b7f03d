package cmd

import (
	"context"
	"fmt"
	"io"
	"os"

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
			return awaited(c, s, "importing "+args[0], func(ctx context.Context, h *runtime.Host) error {
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
	out := imageTable()
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List images",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return awaited(c, s, "looking at images", func(ctx context.Context, h *runtime.Host) error {
				list, err := h.Images.List(ctx)
				if err != nil {
					return err
				}
				return out.print(c.OutOrStdout(), list)
			})
		},
	}
	out.register(c)
	return c
}

func imageTable() *table[image.Listed] {
	return &table[image.Listed]{
		head: []string{"IMAGE", "DIGEST", "SIZE"},
		cells: func(img image.Listed) []string {
			size := "?"
			if img.Size >= 0 {
				size = units.BytesSize(float64(img.Size))
			}
			return []string{img.Ref, fmt.Sprintf("%.19s", img.Digest), size}
		},
		name:  func(img image.Listed) string { return img.Ref },
		quiet: "print references only",
	}
}

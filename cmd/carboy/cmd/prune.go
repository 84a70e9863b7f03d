package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"carboy/image"
	"carboy/runtime"
)

func newImageRm(s *settings) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rm [-f] REF...",
		Short: "Remove images",
		Long: `Remove images by name, short or complete, or every name of one by its digest or
the first twelve digits of it. An image that a bottle uses is only removed with
-f; the bottle lives on.`,
		Args: atLeastOne("an image"),
		RunE: func(c *cobra.Command, args []string) error {
			return awaited(c, s, "removing "+strings.Join(args, " "), func(ctx context.Context, h *runtime.Host) error {
				users, err := h.ImageUsers(ctx)
				if err != nil {
					return err
				}
				var errs []error
				for _, ref := range args {
					found, err := h.Images.Find(ctx, []string{ref})
					errs = append(errs, err, removeImages(ctx, h, c.OutOrStdout(), found, users, force))
				}
				return errors.Join(errs...)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove images that bottles use, too")
	return c
}

func removeImages(ctx context.Context, h *runtime.Host, w io.Writer, list []image.Listed, users image.Users, force bool) error {
	var errs []error
	for _, img := range list {
		if err := h.Images.Remove(ctx, img, users, force); err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintln(w, img.Ref) // it is gone, whoever reads
	}
	return errors.Join(errs...)
}

// pruned is what a prune did, in JSON output.
type pruned struct {
	Images []image.Listed `json:"images"`
	Freed  int64          `json:"freed"` // bytes of content and snapshots
}

func newImagePrune(s *settings) *cobra.Command {
	var all, dry, asJSON bool
	c := &cobra.Command{
		Use:   "prune [--all]",
		Short: "Remove images without a name, or all that no bottle uses",
		Long: `Remove images without a name; with --all every image that no bottle uses. What it
freed is counted in the content and the snapshots of the containerd namespace.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return awaited(c, s, "removing images", func(ctx context.Context, h *runtime.Host) error {
				p, err := prune(ctx, h, all, dry)
				if asJSON {
					return errors.Join(printJSON(c.OutOrStdout(), p), err)
				}
				return errors.Join(printPruned(c.OutOrStdout(), p, dry), err)
			})
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "every image that no bottle uses")
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be removed")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func prune(ctx context.Context, h *runtime.Host, all, dry bool) (p pruned, err error) {
	p.Images = []image.Listed{}
	users, err := h.ImageUsers(ctx)
	if err != nil {
		return p, err
	}
	list, err := h.Images.Prunable(ctx, users, all)
	if err != nil || dry {
		p.Images = append(p.Images, list...)
		return p, err
	}
	before, err := h.Images.Usage(ctx)
	if err != nil {
		return p, err
	}
	var errs []error
	for _, img := range list {
		if err := h.Images.Remove(ctx, img, users, false); err != nil {
			errs = append(errs, err)
			continue
		}
		p.Images = append(p.Images, img)
	}
	after, err := h.Images.Usage(ctx)
	if err == nil {
		p.Freed = max(0, before-after) // a pull beside it may have added
	}
	return p, errors.Join(append(errs, err)...)
}

func printPruned(w io.Writer, p pruned, dry bool) error {
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	for _, img := range p.Images {
		if _, err := fmt.Fprintf(w, "%s %s (%s)\n", verb, img.Ref, units.BytesSize(float64(img.Size))); err != nil {
			return err
		}
	}
	if dry {
		return nil
	}
	_, err := fmt.Fprintf(w, "freed %s\n", units.BytesSize(float64(p.Freed)))
	return err
}

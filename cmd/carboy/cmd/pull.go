package cmd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"carboy/image"
	"carboy/image/progress"
	"carboy/image/registry"
	"carboy/runtime"
	"carboy/runtime/invoker"
	"carboy/runtime/proxy/policy"
)

func newPull(s *settings) *cobra.Command {
	var platform string
	var quiet bool
	c := &cobra.Command{
		Use:   "pull REF",
		Short: "Pull an image from a registry",
		Long: `Pull an image from a registry, unpack it and print its name with its digest. A
name with a digest stays pinned to it. A pull that was cut off goes on from where
it ended, for a day. Mirrors and certificate authorities of registries are those
of ` + registry.HostsDir + `, logins those of Docker's configuration:
--registry-config, then $DOCKER_CONFIG, then that of the user who calls (also
through sudo), with his credential helpers run as him, then root's.`,
		Example: `  carboy pull docker.io/library/busybox
  carboy pull --platform linux/arm64 ghcr.io/me/agent:2`,
		Args: exactlyOne("an image reference"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := image.Platform(platform); err != nil {
				return err
			}
			if _, err := image.Normalize(args[0]); err != nil {
				return err
			}
			return withHost(c, s, func(ctx context.Context, h *runtime.Host) error {
				end := showPulls(h, quiet, func() string { return "pulling " + args[0] })
				defer end()
				img, err := h.Images.Pull(ctx, args[0], platform)
				if err != nil {
					return err
				}
				end()
				_, err = fmt.Fprintln(c.OutOrStdout(), pinned(img))
				return err
			})
		},
	}
	c.Flags().StringVar(&platform, "platform", "", "os/arch[/variant] of the image (default this host's)")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return c
}

// pinned is an image's name with its digest, once.
func pinned(img image.Image) string {
	if strings.Contains(img.Ref, "@") {
		return img.Ref
	}
	return img.Ref + "@" + img.Digest
}

// showPulls has the pulls of a host shown on stderr, and what is waited for beside
// them. The caller ends it.
func showPulls(h *runtime.Host, quiet bool, doing func() string) (end func()) {
	if quiet {
		return func() {}
	}
	board := progress.New(os.Stderr, drawable(os.Stderr), func() string { return policy.Visible(doing()) })
	h.Images.Progress = board
	if logins := h.Images.Access.Logins; logins != nil {
		logins.Say = board.Note
	}
	return board.Close
}

// logins are where credentials for registries are looked for, each read and its
// helpers run with the rights of the user whose they are.
func (s *settings) logins() (sources []registry.Source, err error) {
	who, err := invoker.Current()
	if err == nil {
		who, err = s.held.imager(who)
	}
	if err != nil {
		return nil, err
	}
	of := func(u invoker.User, dir string) registry.Source {
		return registry.Source{Path: filepath.Join(dir, "config.json"), Read: u.ReadFile, Command: u.Command}
	}
	if path := s.get("registry-config"); path != "" {
		named := of(who, path)
		if !who.IsDir(path) {
			named.Path = path
		}
		named.Required = true
		sources = append(sources, named)
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		sources = append(sources, of(who, dir))
	}
	if who.Home != "" {
		sources = append(sources, of(who, filepath.Join(who.Home, ".docker")))
	}
	if os.Geteuid() == 0 && who.UID != 0 {
		root, err := invoker.Root()
		if err != nil {
			return nil, err
		}
		sources = append(sources, of(root, filepath.Join(root.Home, ".docker")))
	}
	return sources, nil
}

package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"carboy/image"
	"carboy/runtime"
)

func newCommit(s *settings) *cobra.Command {
	var message string
	c := &cobra.Command{
		Use:   "commit [-m MESSAGE] NAME REF",
		Short: "Make an image of a running bottle as it stands",
		Long: `Make an image of the root of a running bottle: its own image, and what the agent
wrote and removed. The agent is paused meanwhile. The workspace, secrets and
whatever else is mounted into the container are not in it. Under runsc the host
does not see what an agent writes: it needs --runtime runc.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return wrong("give a bottle and the name of the new image: %s", c.UseLine())
			}
			_, err := image.Normalize(args[1])
			return err
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := notProxy(s, args[1]); err != nil {
				return err
			}
			return awaited(c, s, "making an image of "+args[0], func(ctx context.Context, h *runtime.Host) error {
				img, err := h.Commit(ctx, args[0], args[1], message)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), pinned(img))
				return err
			})
		},
	}
	c.Flags().StringVarP(&message, "message", "m", "", "comment in the image's history")
	return c
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/build"
	"github.com/ctr-tools/ctr/pkg/cli"
)

func prune(root *string) *cobra.Command {
	var o build.PruneOptions
	c := &cobra.Command{
		Use:   "prune [--older-than DURATION] [--mounts]",
		Short: "remove results from the build cache",
		Args:  cobra.NoArgs,
	}
	c.Flags().DurationVar(&o.OlderThan, "older-than", 0, "keep what was used during the last `DURATION` (72h)")
	c.Flags().BoolVar(&o.Mounts, "mounts", false, "remove the directories of RUN --mount=type=cache too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Root = *root
		p, err := build.Prune(o)
		if err != nil {
			return err
		}
		if !cli.Quiet(c) {
			fmt.Fprintf(c.ErrOrStderr(), "removed %d results, %d cache mounts, %d kept steps\n", p.Entries, p.Mounts, p.Kept)
		}
		return nil
	}
	return c
}

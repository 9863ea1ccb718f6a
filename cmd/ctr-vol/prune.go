// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/volume"
)

func prune(store func() *volume.Store) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "prune [-a]",
		Short: "remove anonymous volumes that no bundle has attached",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			removed, err := store().Prune(c.Context(), all)
			for _, name := range removed {
				fmt.Fprintln(c.OutOrStdout(), name)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "named volumes too")
	return c
}

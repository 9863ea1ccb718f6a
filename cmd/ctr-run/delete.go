// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/runtime"
)

// newDelete is "ctr-run delete": remove what is left of a container.
func newDelete() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "delete [--force] ID…",
		Short: "remove containers that have stopped",
		Args:  cobra.MinimumNArgs(1),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "kill a container that runs; one that is not there is no error")
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		for _, id := range args {
			if err := deleteContainer(c.Context(), rt, stateRoot(c), id, force); err != nil {
				return err
			}
		}
		return nil
	})
	return c
}

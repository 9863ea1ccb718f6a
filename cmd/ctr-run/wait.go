// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/supervise"
)

// newWait is "ctr-run wait": sleep until a supervised container is in a condition.
func newWait() *cobra.Command {
	var condition string
	c := &cobra.Command{
		Use:   "wait [--condition stopped|running|healthy] ID",
		Short: "wait for a supervised container and print its exit status",
		Args:  cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&condition, "condition", "stopped", "`CONDITION`: stopped (for good), running or healthy")
	c.RunE = func(c *cobra.Command, args []string) error {
		r, err := supervise.Wait(c.Context(), stateRoot(c), args[0], supervise.Condition(condition))
		if err != nil || condition != string(supervise.UntilStopped) {
			return err
		}
		if r.Exit == nil {
			return fault.Hint(fmt.Errorf("container %s: ended, its exit status is not known: the supervisor was killed", r.ID), "ctr-run delete %s", r.ID)
		}
		fmt.Fprintln(c.OutOrStdout(), r.Exit.Code)
		return nil
	}
	return c
}

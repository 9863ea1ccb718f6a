// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/runtime"
)

// newPlan is "ctr-run plan": what init would do.
func newPlan() *cobra.Command {
	c := &cobra.Command{
		Use:   "plan [--format table|json] BUNDLE",
		Short: "print the system calls that a bundle's init would make",
		Args:  cobra.ExactArgs(1),
	}
	format := cli.FormatFlag(c)
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		if err := cli.CheckFormat(*format); err != nil {
			return err
		}
		return rt.Plan(c.OutOrStdout(), args[0], *format == "json")
	})
	return c
}

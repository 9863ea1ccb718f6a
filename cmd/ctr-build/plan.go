// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/build"
	"github.com/ctr-tools/ctr/pkg/cli"
)

func plan(root *string) *cobra.Command {
	var s source
	c := &cobra.Command{
		Use:   "plan [OPTION]... CONTEXT",
		Short: "print the operations that a build would do",
		Args:  cobra.ArbitraryArgs,
	}
	s.flags(c)
	format := cli.FormatFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := cli.CheckFormat(*format); err != nil {
			return err
		}
		o, err := s.options(c, *root, args)
		if err != nil {
			return err
		}
		o.Output, o.Quiet = c.ErrOrStderr(), cli.Quiet(c)
		var each func(any) error
		if *format == "json" {
			each = func(v any) error { return cli.JSONLine(c.OutOrStdout(), v) }
		}
		return build.Plan(c.Context(), o, each, c.OutOrStdout())
	}
	return c
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/image"
)

func ps(t *tool) *cobra.Command {
	var all, onlyServices bool
	c := &cobra.Command{
		Use:   "ps [OPTION…] [SERVICE…]",
		Short: "list the project's containers",
		Long:  "List the project's containers. With -q only their ids.",
		Args:  cobra.ArbitraryArgs,
	}
	format := cli.FormatFlag(c)
	c.Flags().BoolVarP(&all, "all", "a", false, "those that have ended and one-offs too")
	c.Flags().BoolVar(&onlyServices, "services", false, "only the names of the services that have containers")
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, services []string) error {
		if err := cli.CheckFormat(*format); err != nil {
			return err
		}
		found, err := t.containers(ctx, services, all)
		if err != nil {
			return err
		}
		now := time.Now()
		var rows [][]string
		seen := map[string]bool{}
		for _, f := range found {
			if !all && !f.Running() {
				continue
			}
			r := compose.NewRow(f, now)
			switch {
			case cli.Quiet(c):
				fmt.Fprintln(c.OutOrStdout(), r.ID)
			case onlyServices:
				if !seen[r.Service] {
					seen[r.Service] = true
					fmt.Fprintln(c.OutOrStdout(), r.Service)
				}
			case *format == "json":
				if err := cli.JSONLine(c.OutOrStdout(), r); err != nil {
					return err
				}
			}
			name := r.Image
			if ref, err := image.ParseReference(name); err == nil {
				name = ref.Familiar()
			}
			rows = append(rows, []string{r.Name, name, shorten(r.Command), r.Service, r.RunningFor, r.Status, r.Ports()})
		}
		if *format == "json" || onlyServices || cli.Quiet(c) {
			return nil
		}
		return cli.Table(c.OutOrStdout(), []string{"NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"}, rows)
	})
	return c
}

func shorten(command string) string {
	r := []rune(command)
	if len(r) > 20 {
		return `"` + string(r[:19]) + `…"`
	}
	return `"` + command + `"`
}

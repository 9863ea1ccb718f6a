// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/compose"
)

func logs(t *tool) *cobra.Command {
	var o compose.LogOptions
	var noColor bool
	c := &cobra.Command{
		Use:   "logs [OPTION…] [SERVICE…]",
		Short: "print what the project's containers wrote",
		Args:  cobra.ArbitraryArgs,
	}
	f := c.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "wait for more until the containers have ended")
	f.StringVarP(&o.Tail, "tail", "n", "", "`LINES` from the end of each log (default: all)")
	f.StringVar(&o.Since, "since", "", "only lines from this `TIME` on: 2026-01-02T15:04:05Z, or 10m before now")
	f.StringVar(&o.Until, "until", "", "only lines before this `TIME`")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "put the time before each line")
	f.BoolVar(&o.NoPrefix, "no-log-prefix", false, "no container's name before each line")
	f.BoolVar(&noColor, "no-color", false, "no colours")
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, services []string) error {
		found, err := t.containers(ctx, services, false)
		if err != nil {
			return err
		}
		started := found[:0]
		for _, f := range found {
			if f.Status != "" {
				started = append(started, f)
			}
		}
		o.Color = !noColor && colored(c)
		if o.Since == "" {
			o.Since = "1970-01-01T00:00:00Z" // the bundle's whole log, as Docker has it: also from before a restart
		}
		return compose.Logs(ctx, c.OutOrStdout(), started, o)
	})
	return c
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/compose"
)

func plan(t *tool) *cobra.Command {
	var u upFlags
	var d downFlags
	var isDown, fresh bool
	var output string
	c := &cobra.Command{
		Use:   "plan [OPTION…] [SERVICE…]",
		Short: "print what up, or down, would do as a POSIX shell script",
		Args:  cobra.ArbitraryArgs,
	}
	u.add(c)
	f := c.Flags()
	f.BoolVar(&isDown, "down", false, "print the script of down")
	f.BoolVarP(&d.o.Volumes, "volumes", "v", false, "with --down: remove the volumes too")
	f.BoolVar(&fresh, "fresh", false, "as if nothing were there, images included")
	f.StringVarP(&output, "output", "o", "", "write the script to `FILE`")
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, services []string) error {
		script, err := func() (string, error) {
			if isDown {
				d.o.Services, d.o.RemoveOrphans, d.o.Timeout = services, u.o.RemoveOrphans, u.o.Timeout
				p, _, err := d.plan(ctx, t, false)
				if err != nil {
					return "", err
				}
				return p.Script(), nil
			}
			want, err := u.want(ctx, t, services)
			if err != nil {
				return "", err
			}
			have := &compose.Observed{}
			if !fresh {
				if have, err = compose.Observe(ctx, *t.root, want.Project); err != nil {
					return "", err
				}
			}
			p, err := compose.Up(want, have, u.o)
			if err != nil {
				return "", err
			}
			return p.Script(), nil
		}()
		if err != nil {
			return err
		}
		if output != "" && output != "-" {
			return atomicfile.Write(output, []byte(script), 0o777)
		}
		_, err = io.WriteString(c.OutOrStdout(), script)
		return err
	})
	return c
}

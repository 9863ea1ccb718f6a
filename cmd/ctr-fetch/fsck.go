// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/layout"
)

func fsck() *cobra.Command {
	var o layout.FsckOptions
	c := &cobra.Command{Use: "fsck [flags] [oci:DIR]", Short: "check every name, document and blob of an image layout", Args: atMostOneLayout}
	c.Flags().BoolVar(&o.Repair, "repair", false, "remove blobs whose content is wrong, so that the next fetch gets them again")
	format := cli.FormatFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := cli.CheckFormat(*format); err != nil {
			return err
		}
		l, err := findLayout(rootOf(c), args)
		if err != nil {
			return err
		}
		res, err := l.Fsck(c.Context(), o)
		if err != nil {
			return err
		}
		for _, t := range res.Temps {
			explain(c)("unfinished: %s", t)
		}
		for _, d := range res.Removed {
			explain(c)("removed: %s", d)
		}
		for _, p := range res.Problems {
			var err error
			if *format == "json" {
				err = cli.JSONLine(c.OutOrStdout(), p)
			} else {
				where := string(p.Digest)
				if p.Name != "" {
					where = p.Name + " " + where
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s: %s\n", p.Kind, where, p.Text)
			}
			if err != nil {
				return err
			}
		}
		explain(c)("%d images, %d blobs, %s, %d problems", res.Entries, res.Blobs, size(res.SizeBytes), len(res.Problems))
		if n := len(res.Problems); n > 0 {
			err := fault.As(fault.ErrUnverified, fmt.Errorf("image layout %s: %d problems", l.Dir(), n))
			if !o.Repair {
				err = fault.Hint(err, "--repair removes what is wrong; fetch the images again then")
			}
			return err
		}
		return nil
	}
	return c
}

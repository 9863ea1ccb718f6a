// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/layout"
)

func gc() *cobra.Command {
	var o layout.GCOptions
	c := &cobra.Command{Use: "gc [flags] [oci:DIR]", Short: "remove blobs and unpacked layers that nothing needs, and what interrupted runs left", Args: atMostOneLayout}
	c.Flags().BoolVarP(&o.DryRun, "dry-run", "n", false, "print what would be removed, and remove nothing")
	c.Flags().BoolVar(&o.KeepPartial, "keep-partial", false, "keep blobs that a later fetch can complete")
	c.RunE = func(c *cobra.Command, args []string) error {
		l, err := findLayout(rootOf(c), args)
		if err != nil {
			return err
		}
		if !cli.Quiet(c) {
			o.Waiting = func() {
				fmt.Fprintf(c.ErrOrStderr(), "ctr-fetch: waiting until nobody writes to image layout %s\n", l.Dir())
			}
		}
		res, err := l.GC(c.Context(), o)
		if err != nil {
			return err
		}
		if o.DryRun {
			for _, d := range res.Blobs {
				if _, err := fmt.Fprintln(c.OutOrStdout(), d); err != nil {
					return err
				}
			}
		}
		if len(args) == 0 {
			layers, err := gcSnapshots(c.Context(), rootOf(c), l, o.DryRun)
			if err != nil {
				return err
			}
			if o.DryRun {
				for _, k := range layers.Keys {
					if _, err := fmt.Fprintln(c.OutOrStdout(), "snapshot", k); err != nil {
						return err
					}
				}
			}
			explain(c)("%d unpacked layers: %s", len(layers.Keys), size(layers.Bytes))
		}
		explain(c)("%d blobs, %d partial blobs, %d temporary files: %s", len(res.Blobs), res.Partials, res.Temps, size(res.SizeBytes))
		return nil
	}
	return c
}

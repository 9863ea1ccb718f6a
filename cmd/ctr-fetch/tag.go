// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/image"
)

func tag() *cobra.Command {
	return &cobra.Command{Use: "tag IMAGE NAME…", Short: "give an image more names", Args: some("IMAGE NAME…"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := some("NAME…")(c, args[1:]); err != nil {
				return usage(err)
			}
			names := make([]string, len(args)-1)
			for i, a := range args[1:] {
				n, err := image.Normalize(a)
				if err != nil {
					return err
				}
				names[i] = n
			}
			l, d, err := findImage(c, rootOf(c), args[0])
			if err != nil {
				return err
			}
			for _, n := range names {
				if err := l.Tag(n, d); err != nil {
					return err
				}
			}
			return nil
		}}
}

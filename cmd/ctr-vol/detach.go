// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/volume"
)

func detach(store func() *volume.Store) *cobra.Command {
	return &cobra.Command{
		Use:   "detach BUNDLE [DESTINATION…]",
		Short: "take the mounts at the destinations, or all that were attached, off a bundle",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := bundle.Open(args[0])
			if err != nil {
				return err
			}
			return store().Detach(c.Context(), b, args[1:]...)
		},
	}
}

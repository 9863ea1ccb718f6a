// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/network"
)

func detach(store func() *network.Store) *cobra.Command {
	return &cobra.Command{
		Use:   "detach BUNDLE [NETWORK…]",
		Short: "take a bundle off all networks, or off those named",
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

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/network"
)

func apply(store func() *network.Store) *cobra.Command {
	return &cobra.Command{
		Use:   "apply [BUNDLE…]",
		Short: "make the kernel match the files after a flush or a reboot",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			var bundles []*bundle.Bundle
			for _, a := range args {
				b, err := bundle.Open(a)
				if err != nil {
					return err
				}
				bundles = append(bundles, b)
			}
			return store().Apply(c.Context(), bundles...)
		},
	}
}

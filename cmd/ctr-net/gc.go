// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/network"
)

func gc(store func() *network.Store) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "remove what belongs to dead namespaces and bundles",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			removed, err := store().GC(c.Context())
			for _, r := range removed {
				fmt.Fprintln(c.OutOrStdout(), r)
			}
			return err
		},
	}
}

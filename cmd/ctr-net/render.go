// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/network"
)

func render(store func() *network.Store) *cobra.Command {
	return &cobra.Command{
		Use:   "render [NETWORK…]",
		Short: "print the packet filter's rules of networks without applying them",
		RunE: func(c *cobra.Command, args []string) error {
			s := store()
			if len(args) == 0 {
				networks, err := s.List()
				if err != nil {
					return err
				}
				for _, n := range networks {
					args = append(args, n.Name)
				}
			}
			for _, name := range args {
				n, err := s.Load(name)
				if err != nil {
					return err
				}
				text, err := s.Rules(n)
				if err != nil {
					return err
				}
				fmt.Fprint(c.OutOrStdout(), text)
			}
			return nil
		},
		Args: cobra.ArbitraryArgs,
	}
}

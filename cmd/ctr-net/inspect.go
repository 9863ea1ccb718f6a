// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/network"
)

// inspected is what inspect prints of one network.
type inspected struct {
	*network.Network
	Members  []network.Member `json:"members"`
	Conflist json.RawMessage  `json:"conflist"`
}

func inspect(store func() *network.Store) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME…",
		Short: "print networks and their members as JSON",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s := store()
			for _, name := range args {
				n, err := s.Load(name)
				if err != nil {
					return err
				}
				members, err := s.Members(name)
				if err != nil {
					return err
				}
				if members == nil {
					members = []network.Member{}
				}
				e := json.NewEncoder(c.OutOrStdout())
				e.SetEscapeHTML(false)
				e.SetIndent("", "  ")
				if err := e.Encode(inspected{n, members, n.Conflist()}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

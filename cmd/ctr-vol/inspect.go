// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/volume"
)

// inspected is what inspect prints of one volume.
type inspected struct {
	*volume.Volume
	Path      string   `json:"path"`
	SizeBytes int64    `json:"sizeBytes"`
	Users     []string `json:"users"`
}

func inspect(store func() *volume.Store) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME…",
		Short: "print volumes, their size and users as JSON",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s := store()
			for _, name := range args {
				v, err := s.Load(name)
				if err != nil {
					return err
				}
				users, err := s.Users(name)
				if err != nil {
					return err
				}
				size, err := s.Size(name)
				if err != nil {
					return err
				}
				e := json.NewEncoder(c.OutOrStdout())
				e.SetEscapeHTML(false)
				e.SetIndent("", "  ")
				if err := e.Encode(inspected{v, s.Data(name), size, append([]string{}, users...)}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

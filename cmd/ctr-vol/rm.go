// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/volume"
)

func remove(store func() *volume.Store) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rm [-f] NAME…",
		Short: "remove volumes that no bundle has attached, with their data",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				err := store().Remove(c.Context(), name)
				if force && errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "a volume that is not there is no error")
	return c
}

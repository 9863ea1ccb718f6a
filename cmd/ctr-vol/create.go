// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/volume"
)

func create(store func() *volume.Store) *cobra.Command {
	var labels []string
	c := &cobra.Command{
		Use:   "create [--label KEY=VALUE]… NAME",
		Short: "make an empty volume",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o := volume.CreateOptions{Labels: map[string]string{}}
			for _, l := range labels {
				k, v, _ := strings.Cut(l, "=")
				if k == "" {
					return fault.Usagef("--label %s: want KEY=VALUE", l)
				}
				o.Labels[k] = v
			}
			v, err := store().Create(args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), v.Name)
			return nil
		},
	}
	c.Flags().StringArrayVar(&labels, "label", nil, "`KEY=VALUE` kept with the volume")
	return c
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/volume"
)

// listed is a line of list --format=json.
type listed struct {
	*volume.Volume
	Users []string `json:"users"`
}

func list(store func() *volume.Store) *cobra.Command {
	var nul bool
	c := &cobra.Command{Use: "list", Short: "list volumes", Args: cobra.NoArgs}
	format := cli.FormatFlag(c)
	c.Flags().BoolVarP(&nul, "null", "z", false, "names only, each ended by NUL")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := cli.CheckFormat(*format); err != nil {
			return err
		}
		s := store()
		volumes, bad := s.List() // those that can be read are listed before the error
		var rows [][]string
		for _, v := range volumes {
			users, err := s.Users(v.Name)
			if err != nil {
				return err
			}
			switch {
			case nul:
				fmt.Fprint(c.OutOrStdout(), v.Name+"\x00")
			case *format == "json":
				if err := cli.JSONLine(c.OutOrStdout(), listed{v, append([]string{}, users...)}); err != nil {
					return err
				}
			}
			var labels []string
			for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
				labels = append(labels, k+"="+v.Labels[k])
			}
			rows = append(rows, []string{v.Name, strconv.Itoa(len(users)), dash(strings.Join(labels, ","))})
		}
		if !nul && *format != "json" {
			if err := cli.Table(c.OutOrStdout(), []string{"NAME", "USERS", "LABELS"}, rows); err != nil {
				return err
			}
		}
		return bad
	}
	return c
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/network"
)

// listed is a line of list --format=json.
type listed struct {
	*network.Network
	Members int `json:"members"`
}

func list(store func() *network.Store) *cobra.Command {
	var nul bool
	c := &cobra.Command{Use: "list", Short: "list networks", Args: cobra.NoArgs}
	format := cli.FormatFlag(c)
	c.Flags().BoolVarP(&nul, "null", "z", false, "names only, each ended by NUL")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := cli.CheckFormat(*format); err != nil {
			return err
		}
		s := store()
		networks, bad := s.List() // those that can be read are listed before the error
		var rows [][]string
		for _, n := range networks {
			members, err := s.Members(n.Name)
			if err != nil {
				return err
			}
			switch {
			case nul:
				fmt.Fprint(c.OutOrStdout(), n.Name+"\x00")
			case *format == "json":
				if err := cli.JSONLine(c.OutOrStdout(), listed{n, len(members)}); err != nil {
					return err
				}
			}
			rows = append(rows, []string{n.Name, strings.Join(n.Plugins, "+"), prefixes(n.Subnets), dash(n.Bridge), strconv.Itoa(len(members))})
		}
		if !nul && *format != "json" {
			if err := cli.Table(c.OutOrStdout(), []string{"NAME", "PLUGINS", "SUBNET", "BRIDGE", "MEMBERS"}, rows); err != nil {
				return err
			}
		}
		return bad
	}
	return c
}

func prefixes(all []netip.Prefix) string {
	var s []string
	for _, p := range all {
		s = append(s, p.String())
	}
	return dash(strings.Join(s, ","))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

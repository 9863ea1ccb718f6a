// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sort"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/fault"
)

func config(t *tool) *cobra.Command {
	var format string
	var services, volumes, networks, images, profiles, hash bool
	c := &cobra.Command{
		Use:     "config [OPTION…] [SERVICE…]",
		Aliases: []string{"convert"},
		Short:   "check the files and print the project they make",
		Args:    cobra.ArbitraryArgs,
	}
	f := c.Flags()
	f.StringVar(&format, "format", "yaml", "`FORMAT`: yaml or json")
	f.BoolVar(&services, "services", false, "only the services' names")
	f.BoolVar(&volumes, "volumes", false, "only the volumes' names in the files")
	f.BoolVar(&networks, "networks", false, "only the networks' names in the files")
	f.BoolVar(&images, "images", false, "only the images' references")
	f.BoolVar(&profiles, "profiles", false, "only the profiles' names")
	f.BoolVar(&hash, "hash", false, "only the containers' names and configuration hashes")
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, names []string) error {
		if format != "yaml" && format != "json" {
			return fault.Usagef("--format=%s: want yaml or json", format)
		}
		p, err := t.project(ctx, names, true)
		if err != nil {
			return err
		}
		want, err := compose.Desire(p, nil)
		if err != nil {
			return err
		}
		var lines []string
		switch {
		case services:
			lines = p.ServiceNames()
		case volumes:
			lines = p.VolumeNames()
		case networks:
			lines = p.NetworkNames()
		case profiles:
			seen := map[string]bool{}
			for _, s := range p.AllServices() {
				for _, name := range s.Profiles {
					if !seen[name] {
						seen[name] = true
						lines = append(lines, name)
					}
				}
			}
		case images:
			for _, s := range want.Services {
				lines = append(lines, s.Image)
			}
		case hash:
			for _, s := range want.Services {
				for _, k := range s.Containers {
					lines = append(lines, k.ID+" "+k.ConfigHash)
				}
			}
		case cli.Quiet(c):
		default:
			marshal := func() ([]byte, error) { return p.MarshalYAML() }
			if format == "json" {
				marshal = func() ([]byte, error) { return p.MarshalJSON() }
			}
			data, err := marshal()
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s", data)
			return nil
		}
		sort.Strings(lines)
		for _, l := range lines {
			fmt.Fprintln(c.OutOrStdout(), l)
		}
		return nil
	})
	return c
}

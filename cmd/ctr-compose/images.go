// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/place"
)

// images makes a verb that gets the images of the services for which get is true.
func (t *tool) images(c *cobra.Command, get func(*compose.Service) bool, noDeps bool) *cobra.Command {
	var dryRun bool
	dryRunFlag(c, &dryRun)
	c.Args = cobra.ArbitraryArgs
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, services []string) error {
		p, err := t.project(ctx, services, noDeps)
		if err != nil {
			return err
		}
		want, err := compose.Desire(p, nil)
		if err != nil {
			return err
		}
		chosen := want.Services[:0]
		for _, s := range want.Services {
			if get(s) {
				s.PullPolicy = "always"
				chosen = append(chosen, s)
			}
		}
		want.Services = chosen
		return t.execute(ctx, c, compose.Images(want, &compose.Observed{}, compose.UpOptions{Root: *t.root, Run: place.Run(), Build: true}), dryRun)
	})
	return c
}

func build(t *tool) *cobra.Command {
	c := &cobra.Command{Use: "build [OPTION…] [SERVICE…]", Short: "build the services' images"}
	return t.images(c, func(s *compose.Service) bool { return s.Build != nil }, true)
}

func pull(t *tool) *cobra.Command {
	c := &cobra.Command{Use: "pull [OPTION…] [SERVICE…]", Short: "fetch the services' images"}
	return t.images(c, func(s *compose.Service) bool { return s.Build == nil && s.PullPolicy != "never" }, true)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/project"
)

// downFlags are those that change the plan; down and plan --down share them.
type downFlags struct {
	o    compose.DownOptions
	rmi  string
	name string
}

func (d *downFlags) plan(ctx context.Context, t *tool, lock bool) (*compose.Plan, func(), error) {
	unlock := func() {}
	if err := checkTimeout(d.o.Timeout); err != nil {
		return nil, unlock, err
	}
	switch d.rmi {
	case "":
	case "local":
		d.o.Images = true
	default:
		return nil, unlock, fault.Usagef("--rmi=%s: want local", d.rmi)
	}
	name, p, err := t.nameOnly(ctx)
	if err != nil {
		return nil, unlock, err
	}
	d.name = name
	var want *compose.Desired
	if p != nil {
		if want, err = compose.Desire(p, nil); err != nil {
			return nil, unlock, err
		}
	}
	if _, err := os.Stat(project.Dir(*t.root, name)); err == nil && lock {
		l, err := t.lock(name)
		if err != nil {
			return nil, unlock, err
		}
		unlock = func() {
			project.RemoveEmpty(*t.root, name)
			l.Unlock()
		}
	}
	have, err := compose.Observe(ctx, *t.root, name)
	if err != nil {
		return nil, unlock, err
	}
	d.o.Root, d.o.Run = *t.root, place.Run()
	return compose.Down(name, want, have, d.o), unlock, nil
}

func down(t *tool) *cobra.Command {
	var d downFlags
	var dryRun bool
	c := &cobra.Command{
		Use:   "down [OPTION…] [SERVICE…]",
		Short: "stop and remove the project's containers and networks",
		Args:  cobra.ArbitraryArgs,
	}
	f := c.Flags()
	f.BoolVarP(&d.o.Volumes, "volumes", "v", false, "remove the project's volumes too, with all data in them")
	f.BoolVar(&d.o.RemoveOrphans, "remove-orphans", false, "remove containers of services that are not in the files")
	f.StringVar(&d.rmi, "rmi", "", "`WHICH`: local removes the images that were built for the project")
	timeoutFlag(c, &d.o.Timeout)
	dryRunFlag(c, &dryRun)
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, services []string) error {
		d.o.Services = services
		p, unlock, err := d.plan(ctx, t, !dryRun)
		defer unlock()
		if err != nil {
			return err
		}
		return t.execute(ctx, c, p, dryRun)
	})
	return c
}

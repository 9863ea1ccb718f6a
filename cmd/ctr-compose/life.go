// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/project"
)

// life makes a verb that observes, plans and executes under the project's lock, for the services named or all.
func (t *tool) life(c *cobra.Command, o *compose.LifeOptions, make func(want *compose.Desired, have *compose.Observed) *compose.Plan) *cobra.Command {
	var dryRun bool
	dryRunFlag(c, &dryRun)
	c.Args = cobra.ArbitraryArgs
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, services []string) error {
		if err := checkTimeout(o.Timeout); err != nil {
			return err
		}
		if _, err := t.known(ctx, services); err != nil { // names that are none
			return err
		}
		p, err := t.known(ctx, nil)
		if err != nil {
			return err
		}
		want, err := compose.Desire(p, nil)
		if err != nil {
			return err
		}
		if !dryRun {
			l, err := t.lock(want.Project)
			if err != nil {
				return err
			}
			defer l.Unlock()
			defer project.RemoveEmpty(*t.root, want.Project)
		}
		have, err := compose.Observe(ctx, *t.root, want.Project)
		if err != nil {
			return err
		}
		o.Root, o.Run, o.Services = *t.root, place.Run(), services
		return t.execute(ctx, c, make(want, have), dryRun)
	})
	return c
}

func stop(t *tool) *cobra.Command {
	var o compose.LifeOptions
	c := &cobra.Command{Use: "stop [OPTION…] [SERVICE…]", Short: "stop containers and keep them"}
	timeoutFlag(c, &o.Timeout)
	return t.life(c, &o, func(want *compose.Desired, have *compose.Observed) *compose.Plan { return compose.Stop(want, have, o) })
}

func start(t *tool) *cobra.Command {
	var o compose.LifeOptions
	c := &cobra.Command{Use: "start [OPTION…] [SERVICE…]", Short: "start containers that have ended"}
	return t.life(c, &o, func(want *compose.Desired, have *compose.Observed) *compose.Plan {
		return compose.Restart(want, have, true, o)
	})
}

func restart(t *tool) *cobra.Command {
	var o compose.LifeOptions
	c := &cobra.Command{Use: "restart [OPTION…] [SERVICE…]", Short: "stop containers and start them as they are"}
	timeoutFlag(c, &o.Timeout)
	return t.life(c, &o, func(want *compose.Desired, have *compose.Observed) *compose.Plan {
		return compose.Restart(want, have, false, o)
	})
}

func kill(t *tool) *cobra.Command {
	var o compose.LifeOptions
	var signal string
	c := &cobra.Command{Use: "kill [OPTION…] [SERVICE…]", Short: "send a signal to containers"}
	c.Flags().StringVarP(&signal, "signal", "s", "KILL", "`SIGNAL`")
	return t.life(c, &o, func(want *compose.Desired, have *compose.Observed) *compose.Plan {
		return compose.Kill(want, have, signal, o)
	})
}

func rm(t *tool) *cobra.Command {
	var o compose.LifeOptions
	var stop, force bool
	c := &cobra.Command{Use: "rm [OPTION…] [SERVICE…]", Short: "remove containers that have ended"}
	c.Flags().BoolVarP(&stop, "stop", "s", false, "stop those that run first")
	c.Flags().BoolVarP(&force, "force", "f", false, "accepted: nothing is ever asked")
	timeoutFlag(c, &o.Timeout)
	return t.life(c, &o, func(want *compose.Desired, have *compose.Observed) *compose.Plan {
		return compose.Remove(want, have, stop, o)
	})
}

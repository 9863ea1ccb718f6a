// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/project"
)

// upFlags are those that change the plan; up and plan share them.
type upFlags struct {
	o      compose.UpOptions
	noDeps bool
	pull   string
	scale  []string
}

func (u *upFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&u.o.Build, "build", false, "build images that are there too")
	f.BoolVar(&u.o.Recreate, "force-recreate", false, "make containers anew that have not changed")
	f.BoolVar(&u.o.NoRecreate, "no-recreate", false, "leave containers as they are that have changed")
	f.BoolVar(&u.o.NoStart, "no-start", false, "make the containers and do not start them")
	f.BoolVar(&u.o.RemoveOrphans, "remove-orphans", false, "remove containers of services that are not in the files")
	f.BoolVar(&u.noDeps, "no-deps", false, "without the services that those named depend on")
	f.StringVar(&u.pull, "pull", "", "`POLICY` for images: always, missing or never")
	f.StringArrayVar(&u.scale, "scale", nil, "`SERVICE=N`: run so many containers of the service")
	timeoutFlag(c, &u.o.Timeout)
}

// want is the desired project as the flags have it.
func (u *upFlags) want(ctx context.Context, t *tool, services []string) (*compose.Desired, error) {
	if u.o.Recreate && u.o.NoRecreate {
		return nil, fault.Usagef("--force-recreate and --no-recreate: want one of them")
	}
	if err := checkTimeout(u.o.Timeout); err != nil {
		return nil, err
	}
	switch u.pull {
	case "", "always", "missing", "never":
	default:
		return nil, fault.Usagef("--pull=%s: want always, missing or never", u.pull)
	}
	scale := compose.Scale{}
	for _, s := range u.scale {
		name, number, _ := strings.Cut(s, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > 10000 {
			return nil, fault.Usagef("--scale=%s: want SERVICE=N", s)
		}
		scale[name] = n
	}
	p, err := t.project(ctx, services, u.noDeps)
	if err != nil {
		return nil, err
	}
	want, err := compose.Desire(p, scale)
	if err != nil {
		return nil, err
	}
	for _, s := range want.Services {
		if u.pull != "" && s.Build == nil {
			s.PullPolicy = u.pull
		}
	}
	u.o.Root, u.o.Run, u.o.Partial = *t.root, place.Run(), len(services) > 0
	return want, nil
}

func up(t *tool) *cobra.Command {
	var u upFlags
	var detach, wait, dryRun, noPrefix, noColor, stamps, abort bool
	c := &cobra.Command{
		Use:   "up [OPTION…] [SERVICE…]",
		Short: "make the project what the files say and show its logs",
		Args:  cobra.ArbitraryArgs,
	}
	u.add(c)
	f := c.Flags()
	f.BoolVarP(&detach, "detach", "d", false, "return when everything is started")
	f.BoolVar(&wait, "wait", false, "return when everything runs and is healthy")
	f.BoolVar(&noPrefix, "no-log-prefix", false, "no container's name before each line")
	f.BoolVar(&noColor, "no-color", false, "no colours")
	f.BoolVar(&stamps, "timestamps", false, "put the time before each line")
	f.BoolVar(&abort, "abort-on-container-exit", false, "stop everything when one container ends")
	dryRunFlag(c, &dryRun)
	attached := false
	work := t.action(func(ctx context.Context, c *cobra.Command, services []string) error {
		want, err := u.want(ctx, t, services)
		if err != nil {
			return err
		}
		if dryRun {
			have, err := compose.Observe(ctx, *t.root, want.Project)
			if err != nil {
				return err
			}
			p, err := compose.Up(want, have, u.o)
			if err != nil {
				return err
			}
			return t.execute(ctx, c, p, true)
		}
		if err := t.up(ctx, c, want, u.o); err != nil {
			return err
		}
		if wait {
			return t.waitAll(ctx, c, want)
		}
		attached = !detach && !u.o.NoStart
		return nil
	})
	c.RunE = func(c *cobra.Command, services []string) error {
		if err := work(c, services); err != nil || !attached {
			return err
		}
		return t.attach(c, services, abort, compose.LogOptions{
			Follow: true, NoPrefix: noPrefix, Timestamps: stamps, Color: !noColor && colored(c),
		}, u.o.Timeout)
	}
	return c
}

// up observes, plans and executes under the project's lock.
func (t *tool) up(ctx context.Context, c *cobra.Command, want *compose.Desired, o compose.UpOptions) error {
	l, err := t.lock(want.Project)
	if err != nil {
		return err
	}
	defer l.Unlock()
	defer project.RemoveEmpty(*t.root, want.Project) // where it failed at the first step
	have, err := compose.Observe(ctx, *t.root, want.Project)
	if err != nil {
		return err
	}
	// What is built or fetched although it is there can change containers: it is known first.
	if images := compose.Images(want, have, o); !images.Empty() {
		if err := t.execute(ctx, c, images, false); err != nil {
			return err
		}
		if have, err = compose.Observe(ctx, *t.root, want.Project); err != nil {
			return err
		}
	}
	o.Build = false
	p, err := compose.Up(want, have, o)
	if err != nil {
		return err
	}
	if orphans := compose.Orphans(want, have); len(orphans) > 0 && !o.Partial && !o.RemoveOrphans && os.Getenv("COMPOSE_IGNORE_ORPHANS") == "" {
		for _, f := range orphans {
			t.load.Warn(fmt.Sprintf("container %s: its service %s is not in the files; --remove-orphans removes it", f.ID, f.Service))
		}
	}
	return t.execute(ctx, c, p, false)
}

// waitAll waits until the containers run and those with a health check are healthy.
func (t *tool) waitAll(ctx context.Context, c *cobra.Command, want *compose.Desired) error {
	found, err := compose.ObserveContainers(ctx, *t.root, want.Project)
	if err != nil {
		return err
	}
	p := &compose.Plan{Project: want.Project, Root: *t.root, Run: place.Run(), Title: "wait"}
	for _, f := range found {
		if f.OneOff || f.Broken != "" || !f.Running() && f.Exit != nil && f.Exit.Code == 0 {
			continue // what did its work and ended is done
		}
		condition := "running"
		if f.Health != "" {
			condition = "healthy"
		}
		p.Steps = append(p.Steps, compose.Step{Argv: []string{"ctr-run", "wait", "--condition", condition, f.ID}, About: f.ID, Waits: true})
	}
	return t.execute(ctx, c, p, false)
}

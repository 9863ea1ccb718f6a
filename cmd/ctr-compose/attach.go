// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// attach shows the logs of what runs until all of it has ended. The first Ctrl-C stops the containers, the
// second kills them.
func (t *tool) attach(c *cobra.Command, services []string, abort bool, o compose.LogOptions, timeout string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	found, err := t.containers(ctx, services, false)
	if err != nil {
		return err
	}
	shown := make(chan error, 1)
	go func() { shown <- compose.Logs(ctx, c.OutOrStdout(), found, o) }()
	ended := make(chan struct{}, len(found))
	if abort {
		for _, f := range found {
			go func() {
				if _, err := toolkit.Output(ctx, "ctr-run", "wait", f.ID); err == nil {
					ended <- struct{}{}
				}
			}()
		}
	}
	stopped := make(chan error, 2)
	stop := func(kill bool) {
		p, err := t.endPlan(ctx, services, kill, timeout)
		if err == nil {
			err = compose.Execute(ctx, p, compose.ExecuteOptions{})
		}
		stopped <- err
	}
	var status error
	asked := 0
	for {
		select {
		case err := <-shown:
			if asked > 0 {
				if serr := <-stopped; err == nil {
					err = serr
				}
			}
			if err == nil {
				err = status
			}
			return passOn(err)
		case s := <-signals:
			asked++
			status = interrupted(s.(syscall.Signal))
			switch asked {
			case 1:
				fmt.Fprintln(c.ErrOrStderr(), "ctr-compose: stopping; once more to kill")
				go stop(false)
			case 2:
				fmt.Fprintln(c.ErrOrStderr(), "ctr-compose: killing")
				go stop(true)
			default:
				return status
			}
		case <-ended:
			if asked == 0 {
				asked++
				fmt.Fprintln(c.ErrOrStderr(), "ctr-compose: a container ended: stopping")
				go stop(false)
			}
		}
	}
}

// endPlan stops or kills what is running now.
func (t *tool) endPlan(ctx context.Context, services []string, kill bool, timeout string) (*compose.Plan, error) {
	p, err := t.known(ctx, nil)
	if err != nil {
		return nil, err
	}
	want, err := compose.Desire(p, nil)
	if err != nil {
		return nil, err
	}
	have, err := compose.Observe(ctx, *t.root, want.Project)
	if err != nil {
		return nil, err
	}
	o := compose.LifeOptions{Root: *t.root, Run: place.Run(), Services: slices.Clone(services), Timeout: timeout}
	if kill {
		return compose.Kill(want, have, "KILL", o), nil
	}
	return compose.Stop(want, have, o), nil
}

// colored says whether stdout is a terminal that may be coloured.
func colored(c *cobra.Command) bool {
	f, ok := c.OutOrStdout().(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/runtime"
	"github.com/ctr-tools/ctr/pkg/supervise"
)

// newStop is "ctr-run stop": end a container for good.
func newStop() *cobra.Command {
	var signal string
	var timeout int
	c := &cobra.Command{
		Use:   "stop [-s SIGNAL] [-t SECONDS] ID…",
		Short: "end containers: signal, grace, KILL, no restart",
		Args:  cobra.MinimumNArgs(1),
	}
	c.Flags().StringVarP(&signal, "signal", "s", "", "`SIGNAL` instead of the container's stop signal")
	c.Flags().IntVarP(&timeout, "time", "t", 10, "`SECONDS` until KILL instead of the container's, -1 for ever")
	c.RunE = func(c *cobra.Command, args []string) error {
		var number int
		var seconds *int
		if signal != "" {
			n, err := supervise.ParseSignal(signal)
			if err != nil {
				return err
			}
			number = n
		}
		if c.Flags().Changed("time") {
			seconds = &timeout
		}
		errs := make(chan error, len(args))
		for _, id := range args {
			go func() { errs <- stop(c.Context(), stateRoot(c), id, number, seconds) }()
		}
		var all []error
		for range args {
			all = append(all, <-errs)
		}
		return errors.Join(all...)
	}
	return c
}

// stop ends a container for good, supervised or not.
func stop(ctx context.Context, root, id string, signal int, timeout *int) error {
	err := supervise.Stop(ctx, root, id, signal, timeout)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, err := runtime.New(root).State(id)
	if err != nil {
		return err
	}
	return supervise.StopUnsupervised(ctx, c.Pid, c.StartTime, signal, timeout)
}

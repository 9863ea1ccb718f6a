// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/runtime"
	"github.com/ctr-tools/ctr/pkg/supervise"
)

// newKill is "ctr-run kill": a signal to init.
func newKill() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "kill [--all] ID [SIGNAL]",
		Short: "send a signal, TERM unless another one is named, to a container's init",
		Args:  cobra.RangeArgs(1, 2),
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "send it to every process in the container's cgroup")
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		name := "TERM"
		if len(args) == 2 {
			name = args[1]
		}
		sig, err := parseSignal(name)
		if err != nil {
			return err
		}
		if err := supervise.BeforeKill(stateRoot(c), args[0], int(sig)); err != nil {
			return err
		}
		return rt.Kill(args[0], sig, all)
	})
	return c
}

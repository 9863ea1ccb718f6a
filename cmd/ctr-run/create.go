// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime"
)

// newCreate is "ctr-run create": a container whose init waits for start.
func newCreate() *cobra.Command {
	var o runtime.CreateOptions
	c := &cobra.Command{
		Use:   "create [--bundle DIR] [option…] ID",
		Short: "make a container that waits for start",
		Args:  cobra.ExactArgs(1),
	}
	createFlags(c, &o)
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		o.ID = args[0]
		_, err := rt.Create(c.Context(), o)
		return err
	})
	return c
}

// createFlags adds the options of create and run.
func createFlags(c *cobra.Command, o *runtime.CreateOptions) {
	f := c.Flags()
	f.SetInterspersed(true)
	f.StringVarP(&o.Bundle, "bundle", "b", ".", "`DIR`ectory with config.json and root filesystem")
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "unix socket `FILE` that gets the terminal's master")
	f.StringVar(&o.PidfdSocket, "pidfd-socket", "", "unix socket `FILE` that gets a pidfd of init")
	f.StringVar(&o.PidFile, "pid-file", "", "write init's process number to `FILE`")
	f.BoolVar(&o.NoPivot, "no-pivot", false, "chroot instead of pivot_root, for root filesystems on a ramdisk")
	f.BoolVar(&o.NoNewKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	f.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass `N` further descriptors, from 3 on")
}

// newRun is "ctr-run run": create, start, wait, delete.
func newRun() *cobra.Command {
	var o runtime.RunOptions
	c := &cobra.Command{
		Use:   "run [--bundle DIR] [--detach] [--keep] [option…] ID",
		Short: "create and start a container, and delete it when it has ended",
		Args:  cobra.ExactArgs(1),
	}
	createFlags(c, &o.CreateOptions)
	c.Flags().BoolVarP(&o.Detach, "detach", "d", false, "return when the container runs")
	c.Flags().BoolVar(&o.Keep, "keep", false, "do not delete the container when it has ended")
	c.Flags().Bool("no-subreaper", false, "accepted for runc's callers, without effect")
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		o.ID = args[0]
		status, err := rt.Run(c.Context(), o)
		if err != nil || status == 0 {
			return err
		}
		return fault.Exit{Status: status}
	})
	statusFlag(c)
	return c
}

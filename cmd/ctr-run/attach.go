// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/supervise"
)

// newAttach is "ctr-run attach": join a supervised container's streams.
func newAttach() *cobra.Command {
	var keys string
	var noStdin bool
	c := &cobra.Command{
		Use:   "attach [--no-stdin] [--detach-keys KEYS] ID",
		Short: "join the streams of a supervised container",
		Args:  cobra.ExactArgs(1),
	}
	c.Flags().BoolVar(&noStdin, "no-stdin", false, "only show the output")
	c.Flags().StringVar(&keys, "detach-keys", "ctrl-p,ctrl-q", "`KEYS` that leave a container with a terminal")
	c.RunE = func(c *cobra.Command, args []string) error {
		o := supervise.AttachOptions{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
		if noStdin {
			o.Stdin = nil
		}
		var err error
		if o.DetachKeys, err = supervise.ParseDetachKeys(keys); err != nil {
			return err
		}
		status, err := supervise.Attach(stateRoot(c), args[0], o)
		switch {
		case errors.Is(err, supervise.ErrDetached):
			return nil
		case err == nil && status != 0:
			return fault.Exit{Status: status}
		}
		return err
	}
	return c
}

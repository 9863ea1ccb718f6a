// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime"
)

// Exit statuses of env(1) for a program that did not run.
const (
	statusNotBegun   = 125
	statusCannotExec = 126
	statusNoProgram  = 127
)

// statusFlag adds --status to a verb that runs a program; its RunE is set already.
func statusFlag(c *cobra.Command) {
	var style string
	c.Flags().StringVar(&style, "status", "runc", "`STYLE` of the exit status where the program does not run: runc, or env (125, 126, 127)")
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		switch style {
		case "runc":
			return run(c, args)
		case "env":
			return asEnv(run(c, args))
		}
		return fault.Usagef("--status=%s: want runc or env", style)
	}
}

// asEnv gives an error the exit status of env(1): 127 where the program is not found, 126 where it cannot be executed, 125
// where it did not come to that. A program's own status stays.
func asEnv(err error) error {
	var exit fault.Exit
	if err == nil || errors.As(err, &exit) && exit.Err == nil {
		return err
	}
	status := statusNotBegun
	var exec *runtime.ExecError
	if errors.As(err, &exec) {
		status = statusCannotExec
		if errors.Is(exec, fs.ErrNotExist) {
			status = statusNoProgram
		}
	}
	return fault.Exit{Status: status, Err: err}
}

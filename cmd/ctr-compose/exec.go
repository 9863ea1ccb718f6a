// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

func execVerb(t *tool) *cobra.Command {
	var noTTY, detach, privileged bool
	var index int
	var user, workdir string
	var env []string
	c := &cobra.Command{
		Use:   "exec [OPTION…] SERVICE COMMAND [ARG…]",
		Short: "run a command in a running container of a service",
		Args:  cobra.MinimumNArgs(2),
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&noTTY, "no-tty", "T", false, "no terminal (default where stdin or stdout is none)")
	f.BoolVarP(&detach, "detach", "d", false, "do not wait for the command")
	f.BoolVar(&privileged, "privileged", false, "with all capabilities")
	f.IntVar(&index, "index", 0, "`NUMBER` of the container (default: the first that runs)")
	f.StringVarP(&user, "user", "u", "", "`USER[:GROUP]`")
	f.StringVarP(&workdir, "workdir", "w", "", "working `DIR`")
	f.StringArrayVarP(&env, "env", "e", nil, "`NAME=VALUE` for the command")
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, args []string) error {
		found, err := t.containers(ctx, args[:1], false)
		if err != nil {
			return outside(err)
		}
		var target *compose.Found
		for _, f := range found {
			if f.Running() && (index == 0 && target == nil || f.Number == index) {
				target = f
			}
		}
		if target == nil {
			return outside(fault.Hint(fmt.Errorf("service %s: no container of it runs: %w", args[0], fs.ErrNotExist), "ctr-compose up -d %s", args[0]))
		}
		argv := []string{"ctr-run", "exec", "--status=env"}
		if !noTTY && !detach && onTerminal() {
			argv = append(argv, "--tty")
		}
		if detach {
			argv = append(argv, "--detach")
		}
		if privileged {
			argv = append(argv, "--cap", "ALL")
		}
		if user != "" {
			argv = append(argv, "--user", user)
		}
		if workdir != "" {
			argv = append(argv, "--cwd", workdir)
		}
		for _, e := range env {
			argv = append(argv, "--env", e)
		}
		return become(append(append(argv, target.ID), args[1:]...))
	})
	return c
}

// become replaces this process: the command's terminal, signals and exit status are its own.
func become(argv []string) error {
	path, err := toolkit.Find(argv[0])
	if err != nil {
		return err
	}
	toolkit.Trace(argv)
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, argv, os.Environ()))
}

// outside marks a failure before the command began as env(1) does: 125.
func outside(err error) error { return fault.Exit{Status: 125, Err: err} }

func onTerminal() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

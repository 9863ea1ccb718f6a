// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/supervise"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// newSupervise is "ctr-run supervise": one small process that keeps a container running.
func newSupervise() *cobra.Command {
	var (
		container                      supervise.Container
		detach, tty, noHealth          bool
		restart, stopSignal, healthCmd string
		stopTimeout                    int
		health                         supervise.HealthConfig
	)
	c := &cobra.Command{
		Use:   "supervise [options] ID",
		Short: "run a container with log, restart policy and health checks",
		Args:  cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.BoolVarP(&detach, "detach", "d", false, "return when the container has started")
	f.StringVarP(&container.Bundle, "bundle", "b", ".", "bundle `DIR`")
	f.StringVar(&restart, "restart", "no", "`POLICY`: no, on-failure[:N], always or unless-stopped")
	f.BoolVarP(&container.Options.Interactive, "interactive", "i", false, "keep the container's stdin open")
	f.BoolVarP(&tty, "tty", "t", false, "give the container a terminal (sets process.terminal in config.json)")
	f.StringVar(&stopSignal, "stop-signal", "", "`SIGNAL` that stop sends (default the bundle's, else TERM)")
	f.IntVar(&stopTimeout, "stop-timeout", 10, "`SECONDS` from the stop signal to KILL, -1 for ever")
	f.StringVar(&healthCmd, "health-cmd", "", "shell `COMMAND`, or [\"CMD\",\"arg\",…], that exits 0 while all is well")
	f.DurationVar(&health.Interval, "health-interval", 0, "`TIME` between checks (default 30s)")
	f.DurationVar(&health.Timeout, "health-timeout", 0, "`TIME` after which a check has failed (default 30s)")
	f.IntVar(&health.Retries, "health-retries", 0, "failures in a row that make unhealthy (default 3)")
	f.DurationVar(&health.StartPeriod, "health-start-period", 0, "`TIME` after the start in which failures do not count")
	f.DurationVar(&health.StartInterval, "health-start-interval", 0, "`TIME` between checks in the start period (default 5s)")
	f.BoolVar(&noHealth, "no-healthcheck", false, "ignore the image's health check")
	f.StringVar(&container.Options.OnUnhealthy, "on-unhealthy", "none", "`ACTION`: none, restart (as the policy says) or stop")
	f.Int64Var(&container.Options.LogBytes, "log-size", 10<<20, "`BYTES` at which the log is rotated")
	f.IntVar(&container.Options.LogFiles, "log-files", 3, "log files kept")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		o := &container.Options
		if o.Restart, err = supervise.ParsePolicy(restart); err != nil {
			return err
		}
		if stopSignal != "" {
			if o.StopSignal, err = supervise.ParseSignal(stopSignal); err != nil {
				return err
			}
		}
		if c.Flags().Changed("stop-timeout") {
			o.StopTimeout = &stopTimeout
		}
		if o.LogBytes <= 0 || o.LogFiles <= 0 {
			return fault.Usagef("--log-size=%d --log-files=%d: want at least 1", o.LogBytes, o.LogFiles)
		}
		if noHealth {
			health.Test = []string{"NONE"}
		} else if healthCmd != "" {
			if health.Test, err = supervise.ParseHealthTest(healthCmd); err != nil {
				return err
			}
		}
		o.Health = &health
		if tty {
			if err := setTerminal(container.Bundle); err != nil {
				return err
			}
		}
		container.ID, container.Root = args[0], stateRoot(c)
		if detach {
			container.Self = []string{"ctr-run", "--root=" + container.Root, "supervisor"} // one word: cli.Verbs then builds this verb only
			return supervise.Start(container)
		}
		exit, err := supervise.Run(container, os.Stdin, os.Stdout, os.Stderr)
		if exit != nil && exit.Code != 0 {
			return fault.Exit{Status: exit.Code, Err: err}
		}
		return err
	}
	return c
}

func setTerminal(dir string) error {
	b, err := bundle.Open(dir)
	if err != nil {
		return err
	}
	return b.Update(func(s *specs.Spec) error {
		if s.Process != nil {
			s.Process.Terminal = true
		}
		return nil
	})
}

// newSupervisor is the process behind "supervise --detach"; only that starts it.
func newSupervisor() *cobra.Command {
	return &cobra.Command{
		Use:    "supervisor ID",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return supervise.Main(stateRoot(c), args[0], nil)
		},
	}
}

// stateRoot is the value of --root, absolute.
func stateRoot(c *cobra.Command) string {
	root := c.Root().PersistentFlags().Lookup("root").Value.String()
	if abs, err := filepath.Abs(root); err == nil {
		return abs
	}
	return root
}

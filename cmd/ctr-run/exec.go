// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime"
)

// statusExecFailed is what runc exits with when exec itself fails, and what its callers tell from the
// program's own status.
const statusExecFailed = 255

// maxProcessBytes bounds the file of --process.
const maxProcessBytes = 16 << 20

// newExec is "ctr-run exec": another process in a running container.
func newExec() *cobra.Command {
	var o runtime.ExecOptions
	var user, process, label, apparmor string
	var gids []string
	var tty, noNewPrivs bool
	c := &cobra.Command{
		Use:   "exec [option…] ID COMMAND [ARG…]",
		Short: "start another process in a running container",
		Args:  cobra.MinimumNArgs(1),
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringVar(&o.Cwd, "cwd", "", "working `DIR`ectory in the container")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "add `NAME=VALUE` to the environment")
	f.BoolVarP(&tty, "tty", "t", false, "with a terminal")
	f.StringVarP(&user, "user", "u", "", "as `UID[:GID]`")
	f.StringSliceVarP(&gids, "additional-gids", "g", nil, "with the group `GID`, too")
	f.StringVarP(&process, "process", "p", "", "read the process from `FILE` (process of a config.json), - is stdin")
	f.BoolVarP(&o.Detach, "detach", "d", false, "return when the process runs")
	f.StringVar(&o.PidFile, "pid-file", "", "write the process number to `FILE`")
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "unix socket `FILE` that gets the terminal's master")
	f.StringVar(&o.PidfdSocket, "pidfd-socket", "", "unix socket `FILE` that gets a pidfd of the process")
	f.StringVar(&label, "process-label", "", "SELinux `LABEL` of the process")
	f.StringVar(&apparmor, "apparmor", "", "AppArmor `PROFILE` of the process")
	f.BoolVar(&noNewPrivs, "no-new-privs", false, "forbid new privileges by execve")
	f.StringSliceVarP(&o.Capabilities, "cap", "c", nil, "add the `CAPABILITY` CAP_…")
	f.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass `N` further descriptors, from 3 on")
	f.StringArrayVar(&o.Cgroup, "cgroup", nil, "join `[CONTROLLER,…:]PATH` below the container's cgroup")
	f.BoolVar(&o.IgnorePaused, "ignore-paused", false, "start the process even if the container is paused: it runs when that is resumed")
	run := verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) (err error) {
		switch {
		case process != "" && len(args) > 1:
			return fault.Usagef("--process and a command: want one of the two")
		case process != "":
			if o.Process, err = readProcess(process); err != nil {
				return err
			}
			if tty {
				o.Process.Terminal = true
			}
		case len(args) == 1:
			return fault.Usagef("exec %s: a command is wanted", args[0])
		}
		if label != "" || apparmor != "" {
			return fault.Usagef("--process-label and --apparmor are not supported; use --process")
		}
		o.Args = args[1:]
		o.Terminal = &tty
		if c.Flags().Changed("no-new-privs") {
			o.NoNewPrivs = &noNewPrivs
		}
		if user != "" {
			if o.User, err = parseUser(user); err != nil {
				return err
			}
		}
		for _, g := range gids {
			n, err := parseID(g)
			if err != nil {
				return fault.Usagef("--additional-gids=%s: %v", g, err)
			}
			o.AdditionalGids = append(o.AdditionalGids, n)
		}
		status, err := rt.Exec(c.Context(), args[0], o)
		if err != nil || status == 0 {
			return err
		}
		return fault.Exit{Status: status}
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		var exit fault.Exit
		if err != nil && !errors.As(err, &exit) {
			return fault.Exit{Status: statusExecFailed, Err: err}
		}
		return err
	}
	statusFlag(c)
	return c
}

func readProcess(path string) (*specs.Process, error) {
	in := os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxProcessBytes))
	if err != nil {
		return nil, err
	}
	p, err := runtime.ParseProcess(b)
	if err != nil {
		return nil, errors.New(path + ": " + err.Error())
	}
	return p, nil
}

// parseUser reads UID or UID:GID. Names are not looked up: the container's account file is not to be trusted to
// say who is root.
func parseUser(s string) (*specs.User, error) {
	uid, gid, both := strings.Cut(s, ":")
	u := new(specs.User)
	var err error
	if u.UID, err = parseID(uid); err != nil {
		return nil, fault.Usagef("--user=%s: %v", s, err)
	}
	if both {
		if u.GID, err = parseID(gid); err != nil {
			return nil, fault.Usagef("--user=%s: %v", s, err)
		}
	}
	return u, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, errors.New("found " + strconv.Quote(s) + ", want a number of 0 to 4294967294")
	}
	return uint32(n), nil
}

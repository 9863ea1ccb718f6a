// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/project"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// A tool is what all verbs share: the options that stand before the verb.
type tool struct {
	cmd  *cobra.Command
	root *string
	load compose.LoadOptions
}

func newTool(root *cobra.Command) *tool {
	t := &tool{cmd: root, root: cli.RootFlag(root)}
	f := root.Flags()
	f.StringArrayVarP(&t.load.Files, "file", "f", nil, "Compose `FILE`, - for stdin; may be given more than once")
	f.StringVarP(&t.load.Name, "project-name", "p", "", "`NAME` of the project")
	f.StringVar(&t.load.Directory, "project-directory", "", "`DIR` that relative paths start from")
	f.StringArrayVar(&t.load.EnvFiles, "env-file", nil, "`FILE` with variables instead of .env")
	f.StringArrayVar(&t.load.Profiles, "profile", nil, "make the services of the profile `NAME` part of the project")
	return t
}

// action wraps a verb's function: the first SIGINT or SIGTERM ends its context, the second the process.
func (t *tool) action(f func(ctx context.Context, c *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := t.prepare(c); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(c.Context())
		defer cancel(nil)
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(signals)
		go func() {
			s := (<-signals).(syscall.Signal)
			cancel(interrupted(s))
			s = (<-signals).(syscall.Signal)
			signal.Reset(s)
			_ = syscall.Kill(os.Getpid(), s)
		}()
		err := f(ctx, c, args)
		var in fault.Exit
		if errors.As(context.Cause(ctx), &in) {
			return in
		}
		return passOn(err)
	}
}

func interrupted(s syscall.Signal) error {
	return fault.Exit{Status: 128 + int(s), Err: fmt.Errorf("interrupted: %v", s)}
}

// passOn lets a sibling's exit status be ours: not found stays not found.
func passOn(err error) error {
	var failed *toolkit.Failure
	var exit fault.Exit
	if errors.As(err, &failed) && !errors.As(err, &exit) {
		status := failed.Status
		if status == 2 || status > 125 {
			status = 1 // it was our command line, or a signal: nothing the user wrote
		}
		return fault.Exit{Status: status, Err: err}
	}
	return err
}

// prepare hands the places to the siblings, and makes compose-go's warnings look like ours.
func (t *tool) prepare(c *cobra.Command) error {
	root, err := filepath.Abs(*t.root)
	if err != nil {
		return err
	}
	run, err := filepath.Abs(place.Run())
	if err != nil {
		return err
	}
	*t.root = root
	os.Setenv("CTR_ROOT", root)
	os.Setenv("CTR_RUN", run)
	logrus.SetFormatter(warning{})
	logrus.SetOutput(c.ErrOrStderr())
	if cli.Quiet(c) {
		logrus.SetOutput(io.Discard)
	}
	t.load.Warn = func(s string) { logrus.Warn(s) }
	return nil
}

type warning struct{}

func (warning) Format(e *logrus.Entry) ([]byte, error) {
	return []byte("ctr-compose: warning: " + e.Message + "\n"), nil
}

// project loads the files, with the services named, or all.
func (t *tool) project(ctx context.Context, services []string, noDeps bool) (*types.Project, error) {
	o := t.load
	o.Services, o.NoDeps = services, noDeps
	return compose.Load(ctx, o)
}

// known loads the files for a verb that acts on what is there: services of all profiles, and attributes that
// up refuses are none of its business.
func (t *tool) known(ctx context.Context, services []string) (*types.Project, error) {
	o := t.load
	o.Services, o.NoDeps, o.Profiles, o.Lenient = services, true, []string{"*"}, true
	return compose.Load(ctx, o)
}

// nameOnly is the project's name when there need be no files: -p, COMPOSE_PROJECT_NAME, else from the files.
// p is nil if there are none.
func (t *tool) nameOnly(ctx context.Context) (name string, p *types.Project, err error) {
	p, err = t.known(ctx, nil)
	if err == nil {
		return p.Name, p, nil
	}
	name = t.load.Name
	if name == "" {
		name = os.Getenv("COMPOSE_PROJECT_NAME")
	}
	if errors.Is(err, fs.ErrNotExist) && name != "" && len(t.load.Files) == 0 {
		return name, nil, project.CheckName(name)
	}
	return "", nil, err
}

// containers are the project's containers, those of the services named, or all; one-offs only with oneOffs.
func (t *tool) containers(ctx context.Context, services []string, oneOffs bool) ([]*compose.Found, error) {
	name, p, err := t.nameOnly(ctx)
	if err != nil {
		return nil, err
	}
	all, err := compose.ObserveContainers(ctx, *t.root, name)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	if p != nil {
		for s := range p.AllServices() {
			known[s] = true
		}
	}
	var found []*compose.Found
	for i := range all {
		known[all[i].Service] = true
		if all[i].OneOff && !oneOffs {
			continue
		}
		if len(services) == 0 {
			found = append(found, &all[i])
		}
		for _, s := range services {
			if all[i].Service == s {
				found = append(found, &all[i])
			}
		}
	}
	for _, s := range services {
		if !known[s] {
			return nil, fault.Hint(fmt.Errorf("service %s: %w in project %s", s, fs.ErrNotExist, name), "ctr-compose config --services")
		}
	}
	return found, nil
}

// lock takes the project's lock.
func (t *tool) lock(name string) (*atomicfile.Lock, error) { return project.Lock(*t.root, name) }

// execute runs a plan, or with dryRun prints it.
func (t *tool) execute(ctx context.Context, c *cobra.Command, p *compose.Plan, dryRun bool) error {
	if dryRun {
		_, err := io.WriteString(c.OutOrStdout(), p.Script())
		return err
	}
	o := compose.ExecuteOptions{Jobs: jobs(), Stderr: c.ErrOrStderr()}
	if cli.Quiet(c) {
		o.Stderr = nil
	}
	if cli.Verbose(c) {
		o.Note = func(s compose.Step) {
			if s.Why != "" {
				fmt.Fprintf(c.ErrOrStderr(), "ctr-compose: %s: %s\n", s.About, s.Why)
			}
			fmt.Fprintf(c.ErrOrStderr(), "ctr-compose: %s\n", s)
		}
	}
	return compose.Execute(ctx, p, o)
}

func jobs() int {
	n, _ := strconv.Atoi(os.Getenv("COMPOSE_PARALLEL_LIMIT"))
	return n
}

// checkTimeout refuses a -t that is no number of seconds.
func checkTimeout(s string) error {
	if s == "" {
		return nil
	}
	if n, err := strconv.Atoi(s); err != nil || n < -1 {
		return fault.Usagef("--timeout=%s: want a number of seconds, or -1 to wait for ever", s)
	}
	return nil
}

func timeoutFlag(c *cobra.Command, timeout *string) {
	c.Flags().StringVarP(timeout, "timeout", "t", "", "`SECONDS` from the stop signal to KILL (default: the service's stop_grace_period)")
}

func dryRunFlag(c *cobra.Command, dryRun *bool) {
	c.Flags().BoolVarP(dryRun, "dry-run", "n", false, "print the plan as a shell script and change nothing")
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"strings"
	"syscall"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/compose"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/project"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

type runFlags struct {
	image, name, entrypoint, user, workdir      string
	env, labels, publish, volumes, capAdd, drop []string
	detach, remove, noTTY, interactive, noDeps  bool
	servicePorts, useAliases, build             bool
}

func run(t *tool) *cobra.Command {
	var r runFlags
	c := &cobra.Command{
		Use:   "run [OPTION…] {SERVICE | --image IMAGE} [COMMAND [ARG…]]",
		Short: "run a one-off container of a service, or of an image",
		Long: `Run a one-off container of a service, or with --image a project of one container without a file.
Its exit status is that of the command; 125 is a failure before it began.`,
		Args: cobra.ArbitraryArgs,
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringVar(&r.image, "image", "", "run `IMAGE` in a project of its own; no Compose file is read")
	f.StringVar(&r.name, "name", "", "`NAME` of the container")
	f.StringVar(&r.entrypoint, "entrypoint", "", "`COMMAND` in place of the image's entrypoint")
	f.StringVarP(&r.user, "user", "u", "", "`USER[:GROUP]`")
	f.StringVarP(&r.workdir, "workdir", "w", "", "working `DIR`")
	f.StringArrayVarP(&r.env, "env", "e", nil, "`NAME=VALUE`, or NAME to pass on ours")
	f.StringArrayVarP(&r.labels, "label", "l", nil, "`NAME=VALUE`")
	f.StringArrayVarP(&r.publish, "publish", "p", nil, "`[ADDRESS:][HOST:]PORT[/PROTOCOL]`: publish a port")
	f.StringArrayVarP(&r.volumes, "volume", "v", nil, "`SOURCE:TARGET[:OPTIONS]`: attach a volume or a directory")
	f.StringArrayVar(&r.capAdd, "cap-add", nil, "`CAPABILITY` to add")
	f.StringArrayVar(&r.drop, "cap-drop", nil, "`CAPABILITY` to drop")
	f.BoolVarP(&r.detach, "detach", "d", false, "supervise the container in the background and print its name")
	f.BoolVar(&r.remove, "rm", false, "remove the container when it has ended")
	f.BoolVarP(&r.noTTY, "no-tty", "T", false, "no terminal (default where stdin or stdout is none)")
	f.BoolVarP(&r.interactive, "interactive", "i", false, "with -d: keep stdin open")
	f.BoolVar(&r.noDeps, "no-deps", false, "do not start the services it depends on")
	f.BoolVarP(&r.servicePorts, "service-ports", "P", false, "publish the service's ports")
	f.BoolVar(&r.useAliases, "use-aliases", false, "use the service's names on its networks")
	f.BoolVar(&r.build, "build", false, "build the image first")
	c.RunE = t.action(func(ctx context.Context, c *cobra.Command, args []string) error {
		p, service, args, err := r.project(ctx, t, args)
		if err != nil {
			return err
		}
		return r.run(ctx, t, c, p, service, args)
	})
	return c
}

// project is the files' project with the service named, or that of --image: one service named after the image.
func (r *runFlags) project(ctx context.Context, t *tool, args []string) (*types.Project, string, []string, error) {
	if r.image == "" {
		if len(args) == 0 {
			return nil, "", nil, fault.Hint(fault.Usagef("run: want a service, or --image IMAGE"), "ctr-compose run --help")
		}
		p, err := t.project(ctx, args[:1], false)
		return p, args[0], args[1:], err
	}
	ref, err := image.ParseReference(r.image)
	if err != nil {
		return nil, "", nil, err
	}
	service := path.Base(ref.Repository)
	name := t.load.Name
	if name == "" {
		name = "run-" + random()
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, "", nil, err
	}
	// compose-go fills in what a file would leave out; the document is the smallest that names the image.
	file := "services:\n  " + quoteYAML(service) + ":\n    image: " + quoteYAML(ref.String()) + "\n"
	p, err := compose.LoadText(ctx, file, name, wd)
	return p, service, args, err
}

func quoteYAML(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func random() string {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// apply changes the service as the options say.
func (r *runFlags) apply(s *types.ServiceConfig, args []string, tty bool) error {
	if len(args) > 0 {
		s.Command = args
	}
	if r.entrypoint != "" {
		s.Entrypoint = types.ShellCommand{r.entrypoint}
		if len(args) == 0 {
			s.Command = nil
		}
	}
	if s.Environment == nil {
		s.Environment = types.MappingWithEquals{}
	}
	for _, e := range r.env {
		k, v, ok := strings.Cut(e, "=")
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				continue
			}
		}
		s.Environment[k] = &v
	}
	if s.Labels == nil {
		s.Labels = types.Labels{}
	}
	for _, l := range r.labels {
		k, v, _ := strings.Cut(l, "=")
		s.Labels[k] = v
	}
	if r.user != "" {
		s.User = r.user
	}
	if r.workdir != "" {
		s.WorkingDir = r.workdir
	}
	s.CapAdd = append(s.CapAdd, r.capAdd...)
	s.CapDrop = append(s.CapDrop, r.drop...)
	s.Tty, s.StdinOpen = tty, r.interactive
	s.Restart, s.ContainerName, s.Profiles = "no", "", nil
	if !r.servicePorts {
		s.Ports = nil
	}
	ports, err := compose.ParsePorts(r.publish)
	if err != nil {
		return err
	}
	s.Ports = append(s.Ports, ports...)
	return nil
}

func (r *runFlags) run(ctx context.Context, t *tool, c *cobra.Command, p *types.Project, service string, args []string) error {
	s := p.Services[service]
	if err := r.apply(&s, args, !r.noTTY && !r.detach && onTerminal()); err != nil {
		return err
	}
	mounts, err := compose.ParseVolumes(p, r.volumes)
	if err != nil {
		return err
	}
	s.Volumes = append(s.Volumes, mounts...)
	id := r.name
	if id == "" {
		id = p.Name + "-" + service + "-run-" + random()
	}
	once, err := compose.OneOff(p, s, id, r.useAliases)
	if err != nil {
		return err
	}
	networks, begun, err := r.begin(ctx, t, c, p, service, once)
	if !begun {
		return outside(err)
	}
	switch {
	case err != nil:
		err = outside(err)
	case r.detach:
		fmt.Fprintln(c.OutOrStdout(), id)
		return nil
	default:
		err = foreground([]string{"ctr-run", "run", "--status=env", "--bundle", project.BundleDir(*t.root, p.Name, id), id})
	}
	if !r.remove && r.image == "" {
		return err
	}
	// What was made for this run goes, whatever became of it; an interrupt is no reason to leave it.
	l, lerr := t.lock(p.Name)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	defer l.Unlock()
	ctx = context.WithoutCancel(ctx)
	have, cerr := compose.Observe(ctx, *t.root, p.Name)
	if cerr == nil {
		cerr = t.execute(ctx, c, compose.EndOnce(have, once, compose.UpOptions{Root: *t.root, Run: place.Run()}, networks), false)
	}
	if err == nil {
		err = cerr
	}
	project.RemoveEmpty(*t.root, p.Name)
	return err
}

// begin starts what the service depends on and makes the container, with Detach up to its start, under the
// project's lock. It returns whether anything was done, and the networks that go with a project of one.
func (r *runFlags) begin(ctx context.Context, t *tool, c *cobra.Command, p *types.Project, service string, once *compose.Once) (networks []string, begun bool, err error) {
	want, err := compose.Desire(p, nil)
	if err != nil {
		return nil, false, err
	}
	o := compose.UpOptions{Root: *t.root, Run: place.Run(), Partial: true, Title: "run"}
	l, err := t.lock(p.Name)
	if err != nil {
		return nil, false, err
	}
	defer l.Unlock()
	have, err := compose.Observe(ctx, o.Root, p.Name)
	if err != nil {
		return nil, false, err
	}
	begin, err := compose.RunOnce(want, have, service, once, compose.RunOptions{UpOptions: o, NoDeps: r.noDeps, Detach: r.detach, BuildImage: r.build})
	if err != nil {
		return nil, false, err
	}
	if r.image != "" {
		networks = compose.NewNetworks(want, have)
	}
	return networks, true, t.execute(ctx, c, begin, false)
}

// foreground runs a command with our stdio and waits. It has the terminal's signals itself; the others are
// passed on.
func foreground(argv []string) error {
	path, err := toolkit.Find(argv[0])
	if err != nil {
		return outside(err)
	}
	toolkit.Trace(argv)
	cmd := exec.Command(path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return outside(err)
	}
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM || s == syscall.SIGUSR1 || s == syscall.SIGUSR2 {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	err = cmd.Wait()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return fault.Exit{Status: toolkit.ExitStatus(ee.ProcessState)}
	}
	return err
}

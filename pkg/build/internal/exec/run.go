// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/rootfd"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// A Runtime runs bundles: ctr-run, or something with its command line.
type Runtime struct {
	Name string // of the program, for package toolkit
	Dir  string // private directory (0700) that a reboot may empty: state, secrets
}

// A Step is a RUN with all that it needs.
type Step struct {
	Do      *graph.Run
	State   State   // what it runs on
	Sources []State // what Do.Mounts[i].From counts
	Context *Tree   // for bind mounts of the context
	Caches  string  // directory of cache mounts
	Secrets map[string]func() ([]byte, error)
	Scratch *Scratch
	Output  io.Writer
	Set     Settings
	Resolv  func() (hosts, resolv []byte) // of the host
}

// hostname of every build container: what a step learns of its host must not be in the image.
const hostname = "build"

// waitAfterKill is how long the runtime may take to clean up after its container was killed.
const waitAfterKill = 20 * time.Second

// Run carries out a RUN: one call of the runtime on a bundle whose upper directory becomes the layer.
func (rt Runtime) Run(ctx context.Context, s Step) error {
	view, err := s.Scratch.View(s.State)
	if err != nil {
		return err
	}
	defer view.Close()
	if err := s.Scratch.rootMode(s.State); err != nil {
		return err
	}
	id := s.Scratch.ContainerID()
	m := &mounter{step: &s, private: filepath.Join(rt.Dir, id+privateSuffix)}
	defer m.close()
	spec, err := s.spec(view)
	if err != nil {
		return err
	}
	if err := m.all(ctx, spec); err != nil {
		return err
	}
	stubs, err := findStubs(view, append(destinations(spec), "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"))
	if err != nil {
		return err
	}
	view.Close() // the runtime mounts the same directories to write
	b, err := bundle.Create(BundlePath(s.Scratch.dir), spec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.Path(bundle.RootfsDir), 0o755); err != nil {
		return err
	}
	if err = s.network(ctx, b); err == nil {
		err = rt.call(ctx, s, b, id)
	}
	if s.attached() {
		if e := Detach(ctx, b.Dir()); err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	return stubs.remove(s.Scratch.Upper())
}

// call runs the bundle. When ctx ends the container is killed, and the runtime cleans up and ends by itself.
func (rt Runtime) call(ctx context.Context, s Step, b *bundle.Bundle, id string) error {
	state := filepath.Join(rt.Dir, "containers")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	cmd, err := toolkit.Command(ctx, rt.Name, "--root", state, "run", "--bundle", b.Dir(), id)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = s.Output, s.Output
	cmd.Cancel = func() error { return rt.quiet("--root", state, "kill", id, "KILL") }
	cmd.WaitDelay = waitAfterKill
	err = cmd.Run()
	if _, e := os.Lstat(filepath.Join(state, id)); e == nil { // the runtime died before its clean-up
		rt.quiet("--root", state, "delete", "--force", id)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cmd.ProcessState != nil && !cmd.ProcessState.Success() {
		return fmt.Errorf("exit status %d", toolkit.ExitStatus(cmd.ProcessState))
	}
	return err
}

// quiet runs the runtime where nothing is to be learnt from its failure.
func (rt Runtime) quiet(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), waitAfterKill)
	defer cancel()
	return toolkit.Run(ctx, nil, nil, nil, rt.Name, args...)
}

// privateSuffix ends the name of a step's directory of secrets, after its container's id.
const privateSuffix = ".d"

// Containers lists the ids of which there is something in the runtime's directory: a container, or secrets.
func (rt Runtime) Containers() (ids []string, err error) {
	for dir, suffix := range map[string]string{filepath.Join(rt.Dir, "containers"): "", rt.Dir: privateSuffix} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if id, ok := strings.CutSuffix(e.Name(), suffix); ok && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// Sweep removes what a step that was killed left in the runtime's directory.
func (rt Runtime) Sweep(id string) error {
	state := filepath.Join(rt.Dir, "containers")
	if _, err := os.Lstat(filepath.Join(state, id)); err == nil {
		rt.quiet("--root", state, "delete", "--force", id)
	}
	return os.RemoveAll(filepath.Join(rt.Dir, id+privateSuffix))
}

// spec is the step's runtime config: ctr-run's defaults for an image, with this step's command, the network
// as asked for, and nothing of the host's environment.
func (s *Step) spec(view *rootfd.Root) (*specs.Spec, error) {
	var c image.Config
	c.Config.Env, c.Config.User, c.Config.WorkingDir = s.Do.Env, s.Do.User, s.Do.Dir
	spec, err := image.RuntimeSpec(&c, view, image.RuntimeOptions{Cmd: s.Do.Args, Env: s.Do.Proxy, Hostname: hostname})
	if err != nil {
		return nil, err
	}
	over, err := json.Marshal(bundle.Overlay{Lower: s.State.Lower, Upper: s.Scratch.Upper(), Work: s.Scratch.Path("work")})
	if err != nil {
		return nil, err
	}
	if spec.Annotations == nil {
		spec.Annotations = map[string]string{}
	}
	spec.Annotations[bundle.AnnotationOverlay] = string(over)
	spec.Root = &specs.Root{Path: bundle.RootfsDir}
	if s.Do.Network == "host" {
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
			return n.Type == specs.NetworkNamespace
		})
		// On the host's interfaces a step could read other people's packets.
		withoutCap(spec, "CAP_NET_RAW")
	}
	return spec, nil
}

func withoutCap(spec *specs.Spec, name string) {
	if c := spec.Process.Capabilities; c != nil {
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
			*set = slices.DeleteFunc(*set, func(s string) bool { return s == name })
		}
	}
}

// attached says whether the step joins a network of ctr-net.
func (s *Step) attached() bool { return s.Do.Network != "host" && s.Do.Network != "none" }

// Redact takes the secrets out of the environment of a step's bundle that is kept.
func Redact(dir string, do *graph.Run) error {
	b, err := bundle.Open(dir)
	if err != nil {
		return err
	}
	return b.Update(func(spec *specs.Spec) error {
		for _, m := range do.Mounts {
			if m.Type == "secret" && m.Env != "" {
				spec.Process.Env = slices.DeleteFunc(spec.Process.Env, func(kv string) bool { return strings.HasPrefix(kv, m.Env+"=") })
			}
		}
		return nil
	})
}

// Detach takes the bundle of a step off its networks, whatever became of the step. What it cannot undo is left
// to ctr-net gc.
func Detach(ctx context.Context, dir string) error {
	b, err := bundle.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Lstat(b.Path(bundle.NetworkFile)); err != nil {
		return nil // it never joined one
	}
	return toolkit.Run(context.WithoutCancel(ctx), nil, nil, nil, "ctr-net", "detach", dir)
}

// network joins the step to its network, or gives it the host's names.
func (s *Step) network(ctx context.Context, b *bundle.Bundle) error {
	if s.attached() {
		return toolkit.Run(ctx, nil, io.Discard, nil, "ctr-net", "attach", "--hostname", hostname, b.Dir(), s.Do.Network)
	}
	if err := os.MkdirAll(b.Path(bundle.EtcDir), 0o755); err != nil {
		return err
	}
	hosts, resolv := []byte("127.0.0.1\tlocalhost\n::1\tlocalhost\n"), []byte{}
	if s.Do.Network == "host" && s.Resolv != nil {
		hosts, resolv = s.Resolv()
	}
	var binds []specs.Mount
	for _, f := range []struct {
		name string
		data []byte
	}{{"hosts", hosts}, {"resolv.conf", resolv}} {
		p := filepath.Join(b.Path(bundle.EtcDir), f.name)
		if err := os.WriteFile(p, f.data, 0o644); err != nil {
			return err
		}
		binds = append(binds, specs.Mount{Destination: "/etc/" + f.name, Type: "bind", Source: p, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}})
	}
	return b.Update(func(spec *specs.Spec) error {
		spec.Mounts = append(spec.Mounts, binds...)
		return nil
	})
}

func destinations(spec *specs.Spec) (all []string) {
	for _, m := range spec.Mounts {
		all = append(all, m.Destination)
	}
	return all
}

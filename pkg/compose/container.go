// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/ctr-tools/ctr/pkg/project"
)

// A Container is one container that should be there, as the arguments of the tools that make it. The bundle
// is not in them: where it is does not change what the container is.
type Container struct {
	project.Container
	ID        string
	unpack    []string // flags and IMAGE
	command   []string // CMD after the bundle
	patch     string
	volumes   []string // ctr-vol attach: flags
	mounts    []string // ctr-vol attach: SPEC after the bundle
	join      []string // ctr-net attach: flags; nil: no network
	networks  []string // ctr-net attach: names after the bundle
	supervise []string // ctr-run supervise: flags
	makeDirs  []string // bind sources that are missing and wanted
}

// Steps that make a container, in this order.

func (c *Container) unpackStep(bundle string) Step {
	argv := append([]string{"ctr-fetch", "unpack"}, c.unpack[:len(c.unpack)-1]...)
	if c.patch != "" {
		argv = append(argv, "--patch", "-")
	}
	argv = append(argv, c.unpack[len(c.unpack)-1], bundle)
	return Step{Argv: append(argv, c.command...), Stdin: c.patch, About: c.ID}
}

// attachSteps join the bundle to its volumes and networks. Doing them again is safe.
func (c *Container) attachSteps(bundle string) (steps []Step) {
	for _, d := range c.makeDirs {
		steps = append(steps, Step{Argv: []string{"mkdir", "-p", d}, About: c.ID})
	}
	if len(c.volumes)+len(c.mounts) > 0 {
		argv := append([]string{"ctr-vol", "attach"}, c.volumes...)
		steps = append(steps, Step{Argv: append(append(argv, bundle), c.mounts...), About: c.ID})
	}
	if c.join != nil {
		argv := append([]string{"ctr-net", "attach"}, c.join...)
		steps = append(steps, Step{Argv: append(append(argv, bundle), c.networks...), About: c.ID})
	}
	return steps
}

func (c *Container) startStep(bundle string) Step {
	argv := append([]string{"ctr-run", "supervise", "--detach"}, c.supervise...)
	return Step{Argv: append(argv, "--bundle", bundle, c.ID), About: c.ID}
}

// hash sums up everything the container is made from, but for the image's content, which is compared by its
// digest, and for annotations that say where the project's files are.
func (c *Container) hash() string {
	h := sha256.New()
	e := json.NewEncoder(h)
	for _, v := range []any{c.ID, c.unpack, c.command, c.patch, c.volumes, c.mounts, c.join, c.networks, c.supervise} {
		_ = e.Encode(v) // strings into a hash: cannot fail
	}
	return hex.EncodeToString(h.Sum(nil))
}

// annotate adds the annotations that are not part of the hash.
func (c *Container) annotate(extra map[string]string) {
	c.ConfigHash = c.hash()
	a := c.Annotations()
	for k, v := range extra {
		a[k] = v
	}
	image := c.unpack[len(c.unpack)-1]
	c.unpack = append(append(c.unpack[:len(c.unpack)-1:len(c.unpack)-1], flags("--annotation", pairs(a))...), image)
}

// validRestart is what ctr-run supervise --restart takes.
var validRestart = regexp.MustCompile(`^(no|always|unless-stopped|on-failure(:[0-9]{1,9})?)$`)

// newContainer is the n-th container of a service. full makes real names of the names of networks and volumes.
func newContainer(p *types.Project, s types.ServiceConfig, n int, oneOff string) (*Container, error) {
	c := &Container{Container: project.Container{Project: p.Name, Service: s.Name, Number: n, OneOff: oneOff != "", Image: imageName(p, s)}}
	switch {
	case oneOff != "":
		c.ID = oneOff
	case s.ContainerName != "":
		c.ID = s.ContainerName
	default:
		c.ID = project.ContainerID(p.Name, s.Name, n)
	}
	if err := project.CheckID(c.ID); err != nil {
		return nil, err
	}
	if err := c.setUnpack(s); err != nil {
		return nil, err
	}
	var err error
	if c.patch, err = configPatch(s); err != nil {
		return nil, err
	}
	if err := c.setVolumes(p, s); err != nil {
		return nil, err
	}
	if err := c.setNetworks(p, s); err != nil {
		return nil, err
	}
	return c, c.setSupervise(s)
}

func (c *Container) setUnpack(s types.ServiceConfig) error {
	var f []string
	if s.Platform != "" {
		f = append(f, "--platform", s.Platform)
	}
	env := map[string]string{}
	for k, v := range s.Environment {
		if v != nil {
			env[k] = *v
		}
	}
	f = append(f, flags("--env", pairs(env))...)
	if s.Entrypoint != nil {
		data, err := json.Marshal([]string(s.Entrypoint))
		if err != nil {
			return err
		}
		f = append(f, "--entrypoint", string(data))
	}
	if s.Command != nil && len(s.Command) == 0 && s.Entrypoint == nil {
		return fmt.Errorf("command: an empty one is not supported yet; leave it out for the image's, or set entrypoint too")
	}
	c.command = s.Command
	if s.User != "" {
		f = append(f, "--user", s.User)
	}
	if s.WorkingDir != "" {
		f = append(f, "--workdir", s.WorkingDir)
	}
	if s.Uts != "host" {
		f = append(f, "--hostname", c.hostname(s))
	}
	labels := map[string]string{}
	for _, m := range []map[string]string{s.Annotations, s.Labels} {
		for k, v := range m {
			if strings.HasPrefix(k, "dev.ctr.") || strings.HasPrefix(k, "com.docker.compose.") {
				return fmt.Errorf("label %s: names that start with dev.ctr. or com.docker.compose. are the tools' own", k)
			}
			labels[k] = v
		}
	}
	f = append(f, flags("--annotation", pairs(labels))...)
	if s.Tty {
		f = append(f, "--terminal")
	}
	if s.ReadOnly {
		f = append(f, "--read-only")
	}
	c.unpack = append(f, c.Image)
	return nil
}

func (c *Container) hostname(s types.ServiceConfig) string {
	h := or(s.Hostname, c.ID)
	return strings.TrimRight(h[:min(len(h), 63)], "-_.") // HOST_NAME_MAX is 64
}

func (c *Container) setSupervise(s types.ServiceConfig) error {
	restart := s.Restart
	if d := s.Deploy; d != nil && d.RestartPolicy != nil && restart == "" {
		switch d.RestartPolicy.Condition {
		case "none":
			restart = "no"
		case "on-failure":
			restart = "on-failure"
			if m := d.RestartPolicy.MaxAttempts; m != nil {
				restart += ":" + strconv.FormatUint(*m, 10)
			}
		default:
			restart = "always"
		}
	}
	if !validRestart.MatchString(or(restart, "no")) {
		return fmt.Errorf("restart: found %q, want no, always, unless-stopped or on-failure[:N]", restart)
	}
	f := []string{"--restart", or(restart, "no")}
	if h := s.HealthCheck; h != nil {
		switch {
		case h.Disable, len(h.Test) > 0 && h.Test[0] == "NONE":
			f = append(f, "--no-healthcheck")
		default:
			if len(h.Test) > 0 {
				cmd, err := healthCommand(h.Test)
				if err != nil {
					return err
				}
				f = append(f, "--health-cmd", cmd)
			}
			f = append(f, duration("--health-interval", h.Interval)...)
			f = append(f, duration("--health-timeout", h.Timeout)...)
			if h.Retries != nil {
				f = append(f, "--health-retries", strconv.FormatUint(*h.Retries, 10))
			}
			f = append(f, duration("--health-start-period", h.StartPeriod)...)
			f = append(f, duration("--health-start-interval", h.StartInterval)...)
		}
	}
	if s.StopSignal != "" {
		f = append(f, "--stop-signal", s.StopSignal)
	}
	if g := s.StopGracePeriod; g != nil {
		f = append(f, "--stop-timeout", seconds(time.Duration(*g)))
	}
	if s.StdinOpen {
		f = append(f, "--interactive")
	}
	c.supervise = f
	return nil
}

// healthCommand is a test as --health-cmd takes it: a shell's command line as it is, anything else as JSON.
func healthCommand(test []string) (string, error) {
	switch {
	case test[0] == "CMD-SHELL" && len(test) == 2 && !strings.HasPrefix(strings.TrimSpace(test[1]), "["):
		return test[1], nil
	case test[0] == "CMD-SHELL" && len(test) == 2, test[0] == "CMD" && len(test) > 1:
		data, err := json.Marshal(test)
		return string(data), err
	}
	return "", fmt.Errorf("healthcheck.test: found %q, want NONE, CMD and its words, or CMD-SHELL and one command line", test)
}

func duration(flag string, d *types.Duration) []string {
	if d == nil {
		return nil
	}
	return []string{flag, time.Duration(*d).String()}
}

// seconds rounds up: a grace period of 500ms is no 0.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

func flags(name string, values []string) (f []string) {
	for _, v := range values {
		f = append(f, name, v)
	}
	return f
}

func pairs(m map[string]string) (list []string) {
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	return list
}

func sorted(list []string) []string {
	out := append([]string(nil), list...)
	sort.Strings(out)
	return out
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err) && filepath.IsAbs(path)
}

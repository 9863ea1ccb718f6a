// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/project"
)

// LoadText makes a project of one document that is in no file.
func LoadText(ctx context.Context, text, name, dir string) (*types.Project, error) {
	if err := project.CheckName(name); err != nil {
		return nil, err
	}
	return loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: "-", Content: []byte(text)}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) {
		o.SetProjectName(name, true)
		o.SkipInterpolation = true
	})
}

// ParsePorts reads docker run's --publish values.
func ParsePorts(specs []string) (ports []types.ServicePortConfig, err error) {
	for _, s := range specs {
		p, err := types.ParsePortConfig(s)
		if err != nil {
			return nil, fault.Usagef("--publish=%s: %v", s, err)
		}
		ports = append(ports, p...)
	}
	return ports, nil
}

// shared marks a volume of docker run's --volume: made where it is missing, no project's.
const shared = "x-ctr-shared"

// ParseVolumes reads docker run's --volume values. A name that is no volume of the project becomes one.
func ParseVolumes(p *types.Project, specs []string) (mounts []types.ServiceVolumeConfig, err error) {
	for _, s := range specs {
		v, err := format.ParseVolume(s)
		if err != nil {
			return nil, fault.Usagef("--volume=%s: %v", s, err)
		}
		if v.Type == types.VolumeTypeBind && !filepath.IsAbs(v.Source) {
			v.Source = filepath.Join(p.WorkingDir, v.Source)
		}
		if _, known := p.Volumes[v.Source]; v.Type == types.VolumeTypeVolume && v.Source != "" && !known {
			if p.Volumes == nil {
				p.Volumes = types.Volumes{}
			}
			p.Volumes[v.Source] = types.VolumeConfig{Name: v.Source, Extensions: types.Extensions{shared: true}}
		}
		mounts = append(mounts, v)
	}
	return mounts, nil
}

// A Once is a one-off container, with the anonymous volumes it brings.
type Once struct {
	*Container
	volumesOf []Resource
}

// OneOff is the container of ctr-compose run: id is its name. Its service's names on the networks are its own
// only with aliases.
func OneOff(p *types.Project, s types.ServiceConfig, id string, aliases bool) (*Once, error) {
	c, err := newContainer(p, s, 1, id)
	if err != nil {
		return nil, fmt.Errorf("services.%s.%w", s.Name, err)
	}
	if aliases && len(c.join) > 0 {
		c.join = append(c.join, "--alias", s.Name)
	}
	c.annotate(map[string]string{
		project.LabelWorkingDir:  p.WorkingDir,
		project.LabelConfigFiles: strings.Join(p.ComposeFiles, ","),
	})
	return &Once{c, anonymousVolumes(c, s)}, nil
}

// RunOptions are for RunOnce.
type RunOptions struct {
	UpOptions
	NoDeps     bool // start nothing the service depends on
	Detach     bool // start it supervised, as the plan's last step; else its start is the caller's
	BuildImage bool
}

// RunOnce plans a one-off container of a service: first what it depends on, as up does, then the container.
func RunOnce(want *Desired, have *Observed, service string, once *Once, o RunOptions) (*Plan, error) {
	if find(have, once.ID) != nil {
		return nil, fault.Hint(fmt.Errorf("container %s: %w", once.ID, fault.ErrBusy), "choose another --name, or ctr-compose rm")
	}
	deps := *want
	deps.Volumes = append(append([]Resource(nil), want.Volumes...), once.volumesOf...)
	deps.Services = nil
	var own *Service
	for _, s := range want.Services {
		switch {
		case s.Name == service:
			own = s
		case !o.NoDeps:
			deps.Services = append(deps.Services, s)
		}
	}
	if own == nil {
		return nil, fmt.Errorf("service %s: not in the project", service)
	}
	u, err := newUp(&deps, have, o.UpOptions)
	if err != nil {
		return nil, err
	}
	for _, s := range deps.Services {
		u.service(s)
	}
	after := u.image(own, have, u.images, o.BuildImage && own.Build != nil)
	bundle := u.bundle(once.ID)
	unpack := once.unpackStep(bundle)
	unpack.After = after
	after = u.attach(once.Container, []int{u.add(unpack)})
	if !o.NoDeps {
		after = append(after, u.conditions(own)...)
	}
	if o.Detach {
		start := once.startStep(bundle)
		start.After = after
		u.add(start)
	}
	return u.Plan, nil
}

// EndOnce plans the end of a one-off container with its anonymous volumes, as far as it came, and of the networks
// named: those that were made for it. have is what is there now.
func EndOnce(have *Observed, once *Once, o UpOptions, networks []string) *Plan {
	p := &Plan{Project: once.Project, Root: o.Root, Run: o.Run, Title: "end of run"}
	var last []int
	if f := find(have, once.ID); f != nil {
		last = p.removeWith(f, nil, "", o.Timeout)
	}
	for _, v := range once.volumesOf {
		p.add(Step{Argv: []string{"ctr-vol", "rm", "--force", v.Name}, About: "volume " + v.Name, After: last})
	}
	for _, n := range networks {
		p.add(Step{Argv: []string{"ctr-net", "rm", "--force", n}, About: "network " + n, After: last})
	}
	return p
}

// NewNetworks names the networks of want that are not there and will be made.
func NewNetworks(want *Desired, have *Observed) (names []string) {
	there := map[string]bool{}
	for _, r := range have.Networks {
		there[r.Name] = true
	}
	for _, n := range want.Networks {
		if !n.External && !there[n.Name] {
			names = append(names, n.Name)
		}
	}
	return names
}

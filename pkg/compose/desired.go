// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/project"
)

// Desired is what should be there, in canonical order.
type Desired struct {
	Project  string
	Services []*Service // each after those it depends on, else by name
	Networks []Resource // sorted by name
	Volumes  []Resource
}

// A Service is a service with its containers.
type Service struct {
	Name       string
	Image      string
	Build      []string // ctr-build's arguments with the context last; nil: the image is fetched
	Dockerfile string   // inline; given to ctr-build on stdin
	Platform   string
	PullPolicy string // always, missing, never, build
	Containers []*Container
	DependsOn  []Dependency // sorted by service
	HasHealth  bool         // the file says how its health is found
}

// A Dependency is one entry of depends_on.
type Dependency struct {
	Service   string
	Condition string // service_started, service_healthy, service_completed_successfully
	Restart   bool   // restart when the other one is restarted or made anew
	Required  bool
}

// A Resource is a network or a volume.
type Resource struct {
	Key      string // in the file; empty for anonymous volumes
	Name     string
	External bool     // has to be there, is not ours to make or remove
	Shared   bool     // made where it is missing, but no project's
	Flags    []string // of create, labels excepted
	Labels   map[string]string

	definition // of a network, as far as the file has it
}

// A definition is what a network cannot change while it is there.
type definition struct {
	Subnets  []string `json:"subnets,omitempty"`
	Gateways []string `json:"gateways,omitempty"`
	Internal bool     `json:"internal,omitempty"`
}

// differs says what of a network that is there is not as wanted; empty: nothing. What the file leaves open is as it is.
func (d definition) differs(have definition) string {
	for _, p := range d.Subnets {
		if !slices.Contains(have.Subnets, p) {
			return fmt.Sprintf("has subnet %s, the file wants %s", strings.Join(have.Subnets, ", "), p)
		}
	}
	for _, g := range d.Gateways {
		if !slices.Contains(have.Gateways, g) {
			return fmt.Sprintf("has gateway %s, the file wants %s", strings.Join(have.Gateways, ", "), g)
		}
	}
	switch {
	case d.Internal && !have.Internal:
		return "is not internal, the file wants it to be"
	case !d.Internal && have.Internal:
		return "is internal, the file wants a way out"
	}
	return ""
}

// maxScale bounds the containers of a service: more is a slip of the pen.
const maxScale = 10000

// Scale says how many containers each service named should have.
type Scale map[string]int

// Desire makes command-line arguments of a project.
func Desire(p *types.Project, scale Scale) (*Desired, error) {
	d := &Desired{Project: p.Name}
	names, err := dependencyOrder(p)
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		project.LabelWorkingDir:  p.WorkingDir,
		project.LabelConfigFiles: strings.Join(p.ComposeFiles, ","),
	}
	for _, name := range names {
		s := p.Services[name]
		svc, err := desireService(p, s)
		if err != nil {
			return nil, explain(fmt.Errorf("services.%s.%w", name, err), p.ComposeFiles)
		}
		n := s.GetScale()
		if v, ok := scale[name]; ok {
			n = v
		}
		if n < 0 || n > maxScale {
			return nil, explain(fmt.Errorf("services.%s.scale: found %d, want 0 to %d", name, n, maxScale), p.ComposeFiles)
		}
		if n > 1 && s.ContainerName != "" {
			return nil, fmt.Errorf("services.%s.container_name: %q can name one container only, found a scale of %d", name, s.ContainerName, n)
		}
		for i := 1; i <= n; i++ {
			c, err := newContainer(p, s, i, "")
			if err != nil {
				return nil, explain(fmt.Errorf("services.%s.%w", name, err), p.ComposeFiles)
			}
			c.annotate(with(files, project.LabelDependsOn, svc.dependsOn()))
			svc.Containers = append(svc.Containers, c)
			d.Volumes = append(d.Volumes, anonymousVolumes(c, s)...)
		}
		d.Services = append(d.Services, svc)
	}
	for scaled := range scale {
		if _, ok := p.Services[scaled]; !ok {
			return nil, noService(p, scaled)
		}
	}
	if err := d.desireNetworks(p); err != nil {
		return nil, explain(err, p.ComposeFiles)
	}
	if err := d.desireVolumes(p); err != nil {
		return nil, explain(err, p.ComposeFiles)
	}
	seen := map[string]string{}
	for _, s := range d.Services {
		for _, c := range s.Containers {
			if other, taken := seen[c.ID]; taken {
				return nil, fmt.Errorf("services.%s: the container's name %q is that of service %s too", s.Name, c.ID, other)
			}
			seen[c.ID] = s.Name
		}
	}
	return d, nil
}

func desireService(p *types.Project, s types.ServiceConfig) (*Service, error) {
	svc := &Service{Name: s.Name, Image: imageName(p, s), Platform: s.Platform, PullPolicy: or(s.PullPolicy, "missing")}
	if svc.PullPolicy == "if_not_present" {
		svc.PullPolicy = "missing"
	}
	switch svc.PullPolicy {
	case "always", "missing", "never", "build":
	default:
		return nil, fmt.Errorf("pull_policy: %q is not supported yet; want always, missing, never or build", s.PullPolicy)
	}
	if _, err := image.Normalize(svc.Image); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if s.Build != nil {
		if err := svc.setBuild(s.Build); err != nil {
			return nil, fmt.Errorf("build.%w", err)
		}
	} else if s.Image == "" {
		return nil, fmt.Errorf("image: found none, want image or build")
	}
	for name, dep := range s.DependsOn {
		svc.DependsOn = append(svc.DependsOn, Dependency{Service: name, Condition: dep.Condition, Restart: dep.Restart, Required: dep.Required})
	}
	sort.Slice(svc.DependsOn, func(i, j int) bool { return svc.DependsOn[i].Service < svc.DependsOn[j].Service })
	h := s.HealthCheck
	svc.HasHealth = h != nil && !h.Disable && len(h.Test) > 0 && h.Test[0] != "NONE"
	return svc, nil
}

func (s *Service) setBuild(b *types.BuildConfig) error {
	if strings.Contains(b.Context, "://") || strings.HasPrefix(b.Context, "git@") {
		return fmt.Errorf("context: %q: only directories are supported yet", b.Context)
	}
	f := flags("--tag", append([]string{s.Image}, b.Tags...))
	switch {
	case b.DockerfileInline != "":
		s.Dockerfile = b.DockerfileInline
		f = append(f, "--file", "-")
	case filepath.IsAbs(b.Dockerfile):
		f = append(f, "--file", b.Dockerfile)
	default:
		f = append(f, "--file", filepath.Join(b.Context, or(b.Dockerfile, "Dockerfile")))
	}
	if b.Target != "" {
		f = append(f, "--target", b.Target)
	}
	args := map[string]string{}
	for k, v := range b.Args {
		if v != nil {
			args[k] = *v
		}
	}
	f = append(f, flags("--build-arg", pairs(args))...)
	switch {
	case len(b.Platforms) > 1:
		return fmt.Errorf("platforms: found %d, want one: images for several platforms are not supported yet", len(b.Platforms))
	case len(b.Platforms) == 1:
		f = append(f, "--platform", b.Platforms[0])
	case s.Platform != "":
		f = append(f, "--platform", s.Platform)
	}
	f = append(f, flags("--label", pairs(b.Labels))...)
	if b.Network != "" {
		f = append(f, "--network", b.Network)
	}
	if b.NoCache {
		f = append(f, "--no-cache")
	}
	if b.Pull {
		f = append(f, "--pull")
	}
	s.Build = append(f, b.Context)
	return nil
}

func (s *Service) dependsOn() string {
	var list []string
	for _, d := range s.DependsOn {
		list = append(list, fmt.Sprintf("%s:%s:%v", d.Service, d.Condition, d.Restart))
	}
	return strings.Join(list, ",")
}

// imageName is the full reference of the service's image; one that is only built is named after the project
// and the service.
func imageName(p *types.Project, s types.ServiceConfig) string {
	name := or(s.Image, p.Name+"-"+strings.ToLower(s.Name))
	if full, err := image.Normalize(name); err == nil {
		return full
	}
	return name
}

// dependencyOrder is the services' names, each after those it depends on, and by name where that leaves a
// choice.
func dependencyOrder(p *types.Project) ([]string, error) {
	var order []string
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(name, from string) error
	visit = func(name, from string) error {
		s, ok := p.Services[name]
		switch {
		case !ok:
			return noService(p, name)
		case state[name] == 1:
			return fmt.Errorf("services.%s.depends_on: %s depends on it: a circle", name, from)
		case state[name] == 2:
			return nil
		}
		state[name] = 1
		deps := make([]string, 0, len(s.DependsOn))
		for d := range s.DependsOn {
			deps = append(deps, d)
		}
		sort.Strings(deps)
		for _, d := range deps {
			if _, ok := p.Services[d]; !ok && !s.DependsOn[d].Required {
				continue
			}
			if err := visit(d, name); err != nil {
				return err
			}
		}
		state[name] = 2
		order = append(order, name)
		return nil
	}
	for _, name := range p.ServiceNames() {
		if err := visit(name, ""); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func (d *Desired) desireNetworks(p *types.Project) error {
	for key, n := range p.Networks {
		if err := checkResource(n.Name); err != nil {
			return fmt.Errorf("networks.%s.name: %w", key, err)
		}
		r := Resource{Key: key, Name: n.Name, External: bool(n.External)}
		if !r.External {
			if n.Driver != "" && n.Driver != "bridge" && n.Driver != "default" {
				return fmt.Errorf("networks.%s.driver: %q is not supported yet; want bridge", key, n.Driver)
			}
			for _, pool := range n.Ipam.Config {
				if pool.Subnet != "" {
					r.Flags = append(r.Flags, "--subnet", pool.Subnet)
					r.Subnets = append(r.Subnets, canonical(netip.ParsePrefix, pool.Subnet))
				}
				if pool.Gateway != "" {
					r.Flags = append(r.Flags, "--gateway", pool.Gateway)
					r.Gateways = append(r.Gateways, canonical(netip.ParseAddr, pool.Gateway))
				}
			}
			if n.Internal {
				r.Flags = append(r.Flags, "--internal")
				r.Internal = true
			}
			r.Labels = with(n.Labels, project.LabelProject, p.Name)
			r.Labels[project.LabelNetwork] = key
		}
		d.Networks = append(d.Networks, r)
	}
	sort.Slice(d.Networks, func(i, j int) bool { return d.Networks[i].Name < d.Networks[j].Name })
	return nil
}

func (d *Desired) desireVolumes(p *types.Project) error {
	for key, v := range p.Volumes {
		if err := checkResource(v.Name); err != nil {
			return fmt.Errorf("volumes.%s.name: %w", key, err)
		}
		r := Resource{Key: key, Name: v.Name, External: bool(v.External)}
		if !r.External {
			if v.Driver != "" && v.Driver != "local" {
				return fmt.Errorf("volumes.%s.driver: %q is not supported yet; want local", key, v.Driver)
			}
			if len(v.DriverOpts) > 0 {
				return fmt.Errorf("volumes.%s.driver_opts: not supported yet; a bind mount serves for a directory of the host", key)
			}
			_, r.Shared = v.Extensions[shared]
			if !r.Shared {
				r.Labels = with(v.Labels, project.LabelProject, p.Name)
				r.Labels[project.LabelVolume] = key
			}
		}
		d.Volumes = append(d.Volumes, r)
	}
	sort.Slice(d.Volumes, func(i, j int) bool { return d.Volumes[i].Name < d.Volumes[j].Name })
	return nil
}

func anonymousVolumes(c *Container, s types.ServiceConfig) (list []Resource) {
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume && v.Source == "" {
			list = append(list, Resource{Name: anonymousVolume(c.ID, v.Target), Labels: map[string]string{
				project.LabelProject: c.Project, project.LabelService: c.Service, project.LabelAnonymous: "",
			}})
		}
	}
	return list
}

func with(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range m {
		out[k] = v
	}
	if value == "" {
		delete(out, key)
	}
	return out
}

// canonical writes an address as ctr-net list does; what is none stays, for ctr-net create to refuse.
func canonical[T fmt.Stringer](parse func(string) (T, error), s string) string {
	if v, err := parse(s); err == nil {
		return v.String()
	}
	return s
}

// checkResource refuses names that ctr-net and ctr-vol would refuse, or take for an option.
func checkResource(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	if name != "" && strings.ContainsRune(letters, rune(name[0])) && strings.Trim(name, letters+".-") == "" {
		return nil
	}
	return fmt.Errorf("found %q, want letters, digits, _ . and -, a letter, digit or _ first", name)
}

// MarshalJSON shows a container as what it is made with, for tests and for people.
func (c *Container) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"id": c.ID, "unpack": c.unpack, "command": c.command, "patch": c.patch,
		"volumes": append(c.volumes, c.mounts...), "join": append(c.join, c.networks...), "supervise": c.supervise})
}

// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/project"
)

// UpOptions are for Up. The zero value is ctr-compose up without options.
type UpOptions struct {
	Root, Run     string
	Title         string
	Build         bool // build images that are there too; their containers are made anew
	Recreate      bool // make every container anew
	NoRecreate    bool // leave containers alone that are there, changed or not
	NoStart       bool // make containers, start none
	RemoveOrphans bool // remove containers of services that are not in the files
	Timeout       string
	Partial       bool // want is a selection of the services: others are no orphans
}

// Images plans only what is to be known before containers can be compared: images that are to be fetched or
// built although they are there.
func Images(want *Desired, have *Observed, o UpOptions) *Plan {
	p := &Plan{Project: want.Project, Root: o.Root, Run: o.Run, Title: "images"}
	for _, s := range want.Services {
		if s.Build != nil && (o.Build || s.PullPolicy == "build") || s.Build == nil && s.PullPolicy == "always" {
			p.image(s, have, map[string]int{}, true)
		}
	}
	return p
}

// Up plans the way from have to want. Where nothing differs, the plan is empty.
func Up(want *Desired, have *Observed, o UpOptions) (*Plan, error) {
	u, err := newUp(want, have, o)
	if err != nil {
		return nil, err
	}
	u.orphans()
	for _, s := range want.Services {
		u.service(s)
	}
	return u.Plan, nil
}

// newUp plans networks and volumes.
func newUp(want *Desired, have *Observed, o UpOptions) (*upPlan, error) {
	u := &upPlan{
		Plan:   &Plan{Project: want.Project, Root: o.Root, Run: o.Run, Title: or(o.Title, "up")},
		o:      o,
		want:   want,
		have:   have,
		found:  map[string]*Found{},
		images: map[string]int{},
		makes:  map[string]int{},
		begun:  map[string][]int{},
		ready:  map[string][]int{},
		again:  map[string]bool{},
	}
	for i := range have.Containers {
		u.found[have.Containers[i].ID] = &have.Containers[i]
	}
	if err := u.create("network", "ctr-net", want.Networks, have.Networks); err != nil {
		return nil, err
	}
	return u, u.create("volume", "ctr-vol", want.Volumes, have.Volumes)
}

type upPlan struct {
	*Plan
	o      UpOptions
	want   *Desired
	have   *Observed
	found  map[string]*Found
	images map[string]int   // image → step that gets it
	makes  map[string]int   // network or volume → step that makes it
	begun  map[string][]int // service → steps that start its containers
	ready  map[string][]int // service + condition → steps that wait for it
	again  map[string]bool  // services that were restarted or made anew
}

func (u *upPlan) create(kind, tool string, want []Resource, have []FoundResource) error {
	there := map[string]FoundResource{}
	for _, f := range have {
		there[f.Name] = f
	}
	for _, r := range want {
		f, ok := there[r.Name]
		switch {
		case ok && !r.External && !r.Shared && f.Labels[project.LabelProject] != u.Project:
			return fault.Hint(fmt.Errorf("%s %s: is there, but is not of project %s (label %s: found %q): %w", kind, r.Name, u.Project,
				project.LabelProject, f.Labels[project.LabelProject], fs.ErrExist), "set external: true for it in the Compose file, or give it another name:")
		case ok && !r.External && r.differs(f.definition) != "":
			return fault.Hint(fmt.Errorf("%s %s: %s: %w", kind, r.Name, r.differs(f.definition), fs.ErrExist),
				"make it anew with its containers (volumes stay): ctr-compose down, then ctr-compose up")
		case ok:
			continue
		case r.External:
			return fault.Hint(fmt.Errorf("external %s %s: %w", kind, r.Name, fs.ErrNotExist), "%s create %s", tool, r.Name)
		}
		argv := append([]string{tool, "create"}, r.Flags...)
		argv = append(append(argv, flags("--label", pairs(r.Labels))...), r.Name)
		u.makes[kind+" "+r.Name] = u.add(Step{Argv: argv, About: kind + " " + r.Name})
	}
	return nil
}

// image adds the step that gets a service's image, once for each image, and returns what has to be waited for.
func (p *Plan) image(s *Service, have *Observed, images map[string]int, refresh bool) []int {
	if i, ok := images[s.Image]; ok {
		return []int{i}
	}
	if _, there := have.Images[s.Image]; there && !refresh {
		return nil
	}
	step := Step{About: "image " + s.Image, Talks: true}
	switch {
	case s.Build != nil:
		step.Argv, step.Stdin = append([]string{"ctr-build"}, s.Build...), s.Dockerfile
	case s.PullPolicy == "never":
		return nil
	default:
		step.Argv = []string{"ctr-fetch"}
		if s.Platform != "" {
			step.Argv = append(step.Argv, "--platform", s.Platform)
		}
		step.Argv = append(step.Argv, s.Image)
	}
	images[s.Image] = p.add(step)
	return []int{images[s.Image]}
}

// service plans one service; those it depends on are planned already.
func (u *upPlan) service(s *Service) {
	for _, c := range s.Containers {
		f := u.found[c.ID]
		var after []int
		why := u.reason(s, c, f)
		first := len(u.Steps)
		switch {
		case why == "" && !u.mustRestart(s), why == whyLost && u.o.NoStart:
			continue
		case why == "" || why == whyLost:
			u.again[s.Name] = true
			why = or(why, "a service it depends on is started again")
			after = u.chain(nil, Step{Argv: u.stop(c.ID), About: c.ID, Waits: true},
				Step{Argv: []string{"ctr-run", "delete", "--force", c.ID}, About: c.ID})
		case f != nil && f.Broken == "" && why == whyStopped && u.o.NoStart:
			continue
		case f != nil && f.Broken == "" && why == whyStopped:
			// What ctr-run still lists has its network; after a reboot it has neither.
			if f.Status != "" {
				after = u.chain(nil, Step{Argv: []string{"ctr-run", "delete", "--force", c.ID}, About: c.ID})
			} else {
				after = u.attach(c, nil)
			}
		default:
			after = u.remake(s, c, f)
		}
		u.explain(first, c.ID, why)
		if u.o.NoStart {
			continue
		}
		after = append(after, u.conditions(s)...)
		start := c.startStep(u.bundle(c.ID))
		start.After = after
		if !u.explain(first, c.ID, why) {
			start.Why = why
		}
		u.begun[s.Name] = append(u.begun[s.Name], u.add(start))
	}
	for i := range u.have.Containers { // more than wanted, or under an old name
		f := &u.have.Containers[i]
		if f.Broken == "" && f.Service == s.Name && !f.OneOff && !wanted(s, f.ID) {
			u.remove(f, nil, "there are more than the files want")
		}
	}
}

const (
	whyStopped = "is not running"
	whyLost    = "its supervisor was killed" // it runs without restarts, health checks and log
)

// reason says why a container has to be touched; empty if it is as it should be.
func (u *upPlan) reason(s *Service, c *Container, f *Found) string {
	switch {
	case f == nil:
		return "is not there"
	case f.Broken != "":
		return f.Broken
	case u.o.NoRecreate:
	case u.o.Recreate:
		return "made anew as asked"
	case f.ConfigHash != c.ConfigHash:
		return "its configuration changed"
	case s.Build != nil && u.o.Build:
		return "its image is built again"
	}
	if d, there := u.have.Images[s.Image]; there && !u.o.NoRecreate && d != f.ImageDigest && d != f.ImageIndex && f.ImageDigest != "" {
		return "its image changed"
	}
	if !f.Running() && !u.completed(s, f) {
		return whyStopped
	}
	if f.Lost && f.Running() {
		return whyLost
	}
	return ""
}

// completed says whether a container did what others wait for: a job that ended well is done once for all, until
// it changes.
func (u *upPlan) completed(s *Service, f *Found) bool {
	if f.Exit == nil || f.Exit.Code != 0 {
		return false
	}
	for _, other := range u.want.Services {
		for _, d := range other.DependsOn {
			if d.Service == s.Name && d.Condition == "service_completed_successfully" {
				return true
			}
		}
	}
	return false
}

// mustRestart says whether a dependency with restart: true was started again.
func (u *upPlan) mustRestart(s *Service) bool {
	for _, d := range s.DependsOn {
		if d.Restart && u.again[d.Service] {
			return true
		}
	}
	return false
}

// explain writes why on the first of a container's steps since first, if there is one.
func (u *upPlan) explain(first int, id, why string) bool {
	for i := first; i < len(u.Steps); i++ {
		if u.Steps[i].About == id {
			u.Steps[i].Why = why
			return true
		}
	}
	return false
}

// remake plans a container from its image to its networks, after removing the one that is there.
func (u *upPlan) remake(s *Service, c *Container, f *Found) []int {
	after := u.image(s, u.have, u.images, u.o.Build && s.Build != nil)
	if f != nil {
		after = u.removeWith(f, after, "", u.o.Timeout)
		u.again[s.Name] = true
	}
	unpack := c.unpackStep(u.bundle(c.ID))
	unpack.After = after
	return u.attach(c, []int{u.add(unpack)})
}

// attach joins a bundle to volumes and networks, one tool after the other: each edits its config.json.
func (u *upPlan) attach(c *Container, after []int) []int {
	for _, n := range c.networks {
		name, _, _ := strings.Cut(n, ":") // options follow the colon
		if i, ok := u.makes["network "+name]; ok {
			after = append(after, i)
		}
	}
	for _, r := range u.want.Volumes {
		if i, ok := u.makes["volume "+r.Name]; ok && c.uses(r.Name) {
			after = append(after, i)
		}
	}
	return u.chain(after, c.attachSteps(u.bundle(c.ID))...)
}

func (c *Container) uses(volume string) bool {
	for _, m := range c.mounts {
		if strings.HasPrefix(m, volume+":") {
			return true
		}
	}
	for _, m := range c.volumes {
		if strings.Contains(m, ",src="+volume+",") {
			return true
		}
	}
	return false
}

// conditions are the steps a service's start waits for, as depends_on has it. Each condition is waited for once.
func (u *upPlan) conditions(s *Service) (after []int) {
	for _, d := range s.DependsOn {
		key := d.Service + " " + d.Condition
		if steps, ok := u.ready[key]; ok {
			after = append(after, steps...)
			continue
		}
		var steps []int
		switch d.Condition {
		case "service_healthy", "service_completed_successfully":
			for _, other := range u.want.Services {
				if other.Name != d.Service {
					continue
				}
				for _, c := range other.Containers {
					w := Step{Argv: []string{"ctr-run", "wait", "--condition", "healthy", c.ID}, About: c.ID, Waits: true, After: u.begun[d.Service]}
					if d.Condition == "service_completed_successfully" {
						w.Argv, w.Want = []string{"ctr-run", "wait", c.ID}, "0"
					}
					steps = append(steps, u.add(w))
				}
			}
		default:
			steps = u.begun[d.Service]
		}
		u.ready[key] = steps
		after = append(after, steps...)
	}
	return after
}

func wanted(s *Service, id string) bool {
	for _, c := range s.Containers {
		if c.ID == id {
			return true
		}
	}
	return false
}

// Orphans are containers of services that are not in the files, one-offs excepted.
func Orphans(want *Desired, have *Observed) (orphans []*Found) {
	known := map[string]bool{}
	for _, s := range want.Services {
		known[s.Name] = true
	}
	for i := range have.Containers {
		if f := &have.Containers[i]; f.Broken == "" && !f.OneOff && !known[f.Service] {
			orphans = append(orphans, f)
		}
	}
	sort.Slice(orphans, func(i, j int) bool { return orphans[i].ID < orphans[j].ID })
	return orphans
}

func (u *upPlan) orphans() {
	if !u.o.RemoveOrphans || u.o.Partial {
		return
	}
	for _, f := range Orphans(u.want, u.have) {
		u.remove(f, nil, "its service is not in the files")
	}
}

func (u *upPlan) bundle(id string) string { return project.BundleDir(u.o.Root, u.Project, id) }

func (u *upPlan) stop(id string) []string { return stopArgv(id, u.o.Timeout) }

func stopArgv(id, timeout string) []string {
	argv := []string{"ctr-run", "stop"}
	if timeout != "" {
		argv = append(argv, "--time", timeout)
	}
	return append(argv, id)
}

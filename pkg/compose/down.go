// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"sort"

	"github.com/ctr-tools/ctr/pkg/project"
)

// DownOptions are for Down.
type DownOptions struct {
	Root, Run     string
	Volumes       bool // remove the project's volumes too
	RemoveOrphans bool // containers of services that are not in the files too
	Images        bool // remove the images that have no other name than the one Compose made up
	Timeout       string
	Services      []string // only these; empty: all, and networks
}

// remove plans the end of one container, whatever state it is in, after other steps.
func (p *Plan) remove(f *Found, after []int, why string) []int {
	return p.removeWith(f, after, why, "")
}

func (p *Plan) removeWith(f *Found, after []int, why, timeout string) []int {
	dir := project.BundleDir(p.Root, p.Project, f.ID)
	var steps []Step
	if f.Running() {
		steps = append(steps, Step{Argv: stopArgv(f.ID, timeout), Waits: true})
	}
	if f.Status != "" {
		steps = append(steps, Step{Argv: []string{"ctr-run", "delete", "--force", f.ID}})
	}
	if f.Broken != "half-made" {
		steps = append(steps, Step{Argv: []string{"ctr-net", "detach", dir}})
	}
	steps = append(steps, Step{Argv: []string{"rm", "-rf", dir}})
	for i := range steps {
		steps[i].About = f.ID
	}
	steps[0].Why = why
	return p.chain(after, steps...)
}

// Down plans the end of a project: containers, each after those that depend on it, then networks, with
// Volumes the volumes. want says what depends on what and may be nil; everything else is observed, so that a
// project can be taken down without its files.
func Down(name string, want *Desired, have *Observed, o DownOptions) *Plan {
	p := &Plan{Project: name, Root: o.Root, Run: o.Run, Title: "down"}
	gone := map[string][]int{} // service → its containers' last steps
	var all []int
	left := 0
	for _, f := range stopOrder(want, have) {
		if !o.covers(want, f) {
			left++
			continue
		}
		last := p.removeWith(f, dependents(want, f.Service, gone), "", o.Timeout)
		gone[f.Service] = append(gone[f.Service], last...)
		all = append(all, last...)
	}
	if len(o.Services) > 0 {
		return p
	}
	for _, n := range have.Networks {
		if n.Labels[project.LabelProject] == name && left == 0 {
			all = append(all, p.add(Step{Argv: []string{"ctr-net", "rm", "--force", n.Name}, About: "network " + n.Name, After: all[:len(all):len(all)]}))
		}
	}
	if o.Volumes {
		for _, v := range have.Volumes {
			if v.Labels[project.LabelProject] == name && left == 0 {
				all = append(all, p.add(Step{Argv: []string{"ctr-vol", "rm", "--force", v.Name}, About: "volume " + v.Name, After: all[:len(all):len(all)]}))
			}
		}
	}
	if o.Images && want != nil {
		for _, s := range want.Services {
			if _, there := have.Images[s.Image]; there && s.Build != nil {
				all = append(all, p.add(Step{Argv: []string{"ctr-fetch", "rm", s.Image}, About: "image " + s.Image, After: all[:len(all):len(all)]}))
			}
		}
	}
	if left == 0 && !p.Empty() && len(have.Containers) > 0 {
		p.add(Step{Argv: []string{"rmdir", project.Dir(o.Root, name)}, About: "project " + name, After: all})
	}
	return p
}

func (o DownOptions) covers(want *Desired, f *Found) bool {
	if len(o.Services) > 0 {
		for _, s := range o.Services {
			if f.Service == s {
				return true
			}
		}
		return false
	}
	if want == nil || o.RemoveOrphans || f.OneOff || f.Broken != "" {
		return true
	}
	for _, s := range want.Services {
		if s.Name == f.Service {
			return true
		}
	}
	return false
}

// stopOrder is the containers that are there, dependents before what they depend on.
func stopOrder(want *Desired, have *Observed) []*Found {
	rank := map[string]int{}
	if want != nil {
		for i, s := range want.Services {
			rank[s.Name] = i + 1
		}
	}
	order := make([]*Found, len(have.Containers))
	for i := range have.Containers {
		order[i] = &have.Containers[i]
	}
	place := func(f *Found) int {
		if r, ok := rank[f.Service]; ok && !f.OneOff {
			return r
		}
		return len(rank) + 1 // one-offs and orphans may use any service: first
	}
	sort.SliceStable(order, func(i, j int) bool { return place(order[i]) > place(order[j]) })
	return order
}

// dependents are the last steps of the containers of services that depend on the one named.
func dependents(want *Desired, service string, gone map[string][]int) (after []int) {
	if want == nil {
		return nil
	}
	for _, s := range want.Services {
		for _, d := range s.DependsOn {
			if d.Service == service {
				after = append(after, gone[s.Name]...)
			}
		}
	}
	return after
}

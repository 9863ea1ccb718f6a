// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"slices"

	"github.com/ctr-tools/ctr/pkg/project"
)

// LifeOptions are for the plans that change no container but its processes.
type LifeOptions struct {
	Root, Run string
	Services  []string // only these; empty: all
	Timeout   string   // seconds until a process that does not stop is killed; empty: the container's own
}

// Stop plans the end of the services' processes; containers stay.
func Stop(want *Desired, have *Observed, o LifeOptions) *Plan {
	p := o.plan(want, "stop")
	ended := map[string][]int{}
	for _, f := range stopOrder(want, have) {
		if !f.Running() || !o.covers(f) {
			continue
		}
		i := p.add(Step{Argv: stopArgv(f.ID, o.Timeout), About: f.ID, Waits: true, After: dependents(want, f.Service, ended)})
		ended[f.Service] = append(ended[f.Service], i)
	}
	return p
}

// Kill plans a signal to the services' containers.
func Kill(want *Desired, have *Observed, signal string, o LifeOptions) *Plan {
	p := o.plan(want, "kill")
	for i := range have.Containers {
		if f := &have.Containers[i]; f.Running() && o.covers(f) {
			p.add(Step{Argv: []string{"ctr-run", "kill", f.ID, signal}, About: f.ID})
		}
	}
	return p
}

// Remove plans the removal of the services' containers that have ended; all of them with stop.
func Remove(want *Desired, have *Observed, stop bool, o LifeOptions) *Plan {
	p := o.plan(want, "rm")
	gone := map[string][]int{}
	for _, f := range stopOrder(want, have) {
		if f.Running() && !stop || !o.covers(f) {
			continue
		}
		gone[f.Service] = append(gone[f.Service], p.removeWith(f, dependents(want, f.Service, gone), "", o.Timeout)...)
	}
	return p
}

// Restart plans the end and the new start of the services' containers that are there, changed files or not;
// each starts after those it depends on.
//
// With onlyEnded, those that run are left alone.
func Restart(want *Desired, have *Observed, onlyEnded bool, o LifeOptions) *Plan {
	p := o.plan(want, "restart")
	if onlyEnded {
		p.Title = "start"
	}
	ended := map[string][]int{}
	for _, f := range stopOrder(want, have) {
		if f.Broken != "" || !o.covers(f) || onlyEnded && f.Running() {
			continue
		}
		var steps []Step
		if f.Running() {
			steps = append(steps, Step{Argv: stopArgv(f.ID, o.Timeout), About: f.ID, Waits: true})
		}
		if f.Status != "" {
			steps = append(steps, Step{Argv: []string{"ctr-run", "delete", "--force", f.ID}, About: f.ID})
		}
		ended[f.Service] = append(ended[f.Service], p.chain(dependents(want, f.Service, ended), steps...)...)
	}
	begun := map[string][]int{}
	for _, s := range want.Services {
		for _, c := range s.Containers {
			f := find(have, c.ID)
			if f == nil || f.Broken != "" || !o.covers(f) || onlyEnded && f.Running() {
				continue
			}
			after := append([]int(nil), ended[s.Name]...)
			for _, d := range s.DependsOn {
				after = append(after, begun[d.Service]...)
			}
			bundle := project.BundleDir(o.Root, want.Project, c.ID)
			if f.Status == "" {
				after = p.chain(after, c.attachSteps(bundle)...)
			}
			start := c.startStep(bundle)
			start.After = after
			begun[s.Name] = append(begun[s.Name], p.add(start))
		}
	}
	return p
}

func find(have *Observed, id string) *Found {
	for i := range have.Containers {
		if have.Containers[i].ID == id {
			return &have.Containers[i]
		}
	}
	return nil
}

func (o LifeOptions) covers(f *Found) bool {
	return !f.OneOff && (len(o.Services) == 0 || slices.Contains(o.Services, f.Service))
}

func (o LifeOptions) plan(want *Desired, title string) *Plan {
	return &Plan{Project: want.Project, Root: o.Root, Run: o.Run, Title: title}
}

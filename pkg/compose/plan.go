// SPDX-License-Identifier: Apache-2.0

// Package compose turns a Compose project into command lines of the other tools: [Load] reads the files,
// [Desire] says what should be there, [Observe] asks what is there, [Up] and [Down] make the difference a
// [Plan], [Plan.Script] prints it as a POSIX shell script and [Execute] runs it. The executor decides nothing,
// and nothing is remembered but the bundles with their annotations (spec/project.md).
package compose

import "github.com/ctr-tools/ctr/pkg/toolkit"

// A Step is one command line.
type Step struct {
	Argv  []string
	Stdin string // given on stdin; empty: none
	Want  string // what the command has to print, spaces around it aside; empty: anything
	After []int  // the steps that have to be done before, by index; all smaller than its own

	About string // the container, network, volume or image it is about
	Why   string // reason, on the first of the steps about a thing
	Talks bool   // its stderr is for the user even if all is well (a build, a download)
	Waits bool   // it waits for something else than itself and uses no processor meanwhile
}

func (s Step) String() string { return toolkit.Quote(s.Argv) }

// A Plan is a graph of steps in topological order.
type Plan struct {
	Project string
	Root    string // CTR_ROOT
	Run     string // CTR_RUN
	Title   string // for the script's first comment
	Steps   []Step
}

func (p *Plan) add(s Step) int {
	p.Steps = append(p.Steps, s)
	return len(p.Steps) - 1
}

// chain adds steps that have to be done one after the other, the first one after the steps named, and returns
// the index of the last.
func (p *Plan) chain(after []int, steps ...Step) []int {
	for _, s := range steps {
		s.After = append(append([]int(nil), s.After...), after...)
		after = []int{p.add(s)}
	}
	return after
}

// Empty says whether there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Steps) == 0 }

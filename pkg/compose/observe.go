// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"time"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/project"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// Observed is what is there. Its JSON form is that of testdata/*/observed.json.
type Observed struct {
	Containers []Found           `json:"containers"` // sorted by id
	Networks   []FoundResource   `json:"networks"`
	Volumes    []FoundResource   `json:"volumes"`
	Images     map[string]string `json:"images"` // full reference → digest, index or manifest
}

// A Found is a container that has a bundle in the project's directory.
type Found struct {
	ID string `json:"id"`
	project.Container
	Broken      string    `json:"broken,omitempty"` // why the bundle is of no use: half-made, or not ours
	ImageDigest string    `json:"imageDigest,omitempty"`
	ImageIndex  string    `json:"imageIndex,omitempty"`
	Status      string    `json:"status,omitempty"` // ctr-run's; empty: ctr-run does not know it
	Health      string    `json:"health,omitempty"`
	PID         int       `json:"pid,omitempty"`
	Restarts    int       `json:"restarts,omitempty"`
	Lost        bool      `json:"lost,omitempty"` // it runs, and its supervisor was killed
	Exit        *Exit     `json:"exit,omitempty"`
	Created     time.Time `json:"created"`
	Started     time.Time `json:"started,omitzero"` // of the run that goes on
	Args        []string  `json:"args,omitempty"`

	Annotations map[string]string `json:"-"`
}

// Exit is how a container's last process ended.
type Exit struct {
	Code       int       `json:"code"`
	Signal     any       `json:"signal,omitempty"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
}

// A FoundResource is a network or volume that is there.
type FoundResource struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	definition
}

// Running says whether the container has a process, or will have one soon without us.
func (f *Found) Running() bool {
	switch f.Status {
	case "", "stopped", "created", "creating", "exited", "dead":
		return false
	}
	return true // running, paused, restarting
}

// Observe asks the tools and reads the bundles of a project.
func Observe(ctx context.Context, root, name string) (*Observed, error) {
	o := &Observed{Images: map[string]string{}}
	var err error
	if o.Containers, err = ObserveContainers(ctx, root, name); err != nil {
		return nil, err
	}
	if err := list(ctx, func(line []byte) error {
		var i struct{ Name, Digest string }
		err := json.Unmarshal(line, &i)
		if i.Name != "" {
			o.Images[i.Name] = i.Digest
		}
		return err
	}, "ctr-fetch", "list", "--format=json"); err != nil {
		return nil, err
	}
	if o.Networks, err = resources(ctx, "ctr-net"); err != nil {
		return nil, err
	}
	if o.Volumes, err = resources(ctx, "ctr-vol"); err != nil {
		return nil, err
	}
	return o, nil
}

// ObserveContainers is the part of Observe that is about containers.
func ObserveContainers(ctx context.Context, root, name string) ([]Found, error) {
	states, err := containerStates(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := project.IDs(root, name)
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, id := range ids {
		f := readBundle(root, name, id)
		if s, ok := states[id]; ok && sameDir(s.Bundle, project.BundleDir(root, name, id)) {
			f.Status, f.Health, f.PID, f.Restarts, f.Exit = s.Status, s.Health, s.PID, s.Restarts, s.Exit
			if f.Created.IsZero() {
				f.Created = s.Created
			}
			f.Lost, f.Started = s.SupervisorLost, s.StartedAt
		}
		found = append(found, f)
	}
	return found, nil
}

func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func readBundle(root, name, id string) Found {
	f := Found{ID: id, Container: project.Container{Project: name}}
	b, err := bundle.Open(project.BundleDir(root, name, id))
	if err != nil {
		f.Broken = "half-made"
		return f
	}
	spec, err := b.Config()
	if err != nil {
		f.Broken = err.Error()
		return f
	}
	f.Annotations = spec.Annotations
	if spec.Process != nil {
		f.Args = spec.Process.Args
	}
	if f.Container, err = project.Parse(name, spec.Annotations); err != nil {
		f.Broken = err.Error()
		return f
	}
	var image bundle.Image
	if err := b.ReadJSON(bundle.ImageFile, &image); err == nil {
		f.ImageDigest, f.ImageIndex = image.Digest, image.Index
	}
	if st, err := os.Stat(b.Path(bundle.ImageFile)); err == nil { // written once, when the bundle was made
		f.Created = st.ModTime()
	}
	return f
}

type state struct {
	ID       string
	PID      int
	Status   string
	Bundle   string
	Created  time.Time
	Restarts int
	Health   string

	StartedAt      time.Time
	SupervisorLost bool

	Exit *Exit
}

func containerStates(ctx context.Context) (map[string]state, error) {
	out, err := toolkit.Output(ctx, "ctr-run", "list", "--format", "json")
	if err != nil {
		return nil, err
	}
	states := map[string]state{}
	var list []state
	if err := json.Unmarshal(orNull(out), &list); err != nil {
		return nil, fmt.Errorf("ctr-run list --format json: %w", err)
	}
	for _, s := range list {
		states[s.ID] = s
	}
	return states, nil
}

func orNull(out []byte) []byte {
	if len(bytes.TrimSpace(out)) == 0 {
		return []byte("null")
	}
	return out
}

// list runs a listing that prints one JSON object a line. A place that does not exist yet lists nothing.
func list(ctx context.Context, each func([]byte) error, argv ...string) error {
	out, err := toolkit.Output(ctx, argv[0], argv[1:]...)
	var failed *toolkit.Failure
	if errors.As(err, &failed) && failed.Status == 3 || errors.Is(err, fs.ErrNotExist) && failed != nil {
		return nil
	}
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := each(lines.Bytes()); err != nil {
			return fmt.Errorf("%s: %w", toolkit.Quote(argv), err)
		}
	}
	return lines.Err()
}

func resources(ctx context.Context, tool string) (found []FoundResource, err error) {
	err = list(ctx, func(line []byte) error {
		var r FoundResource
		err := json.Unmarshal(line, &r)
		found = append(found, r)
		return err
	}, tool, "list", "--format=json")
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found, err
}

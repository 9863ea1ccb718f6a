// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
)

// Options say what is wanted of a Dockerfile.
type Options struct {
	Target   string            // name or number of a stage; empty: the last one
	Args     map[string]string // values of ARGs
	Proxy    []string          // NAME=VALUE proxy variables for RUN, unless Args has the name
	Platform ocispec.Platform  // of the result
	Host     ocispec.Platform  // of this machine
	Labels   map[string]string // added to the result
	Network  string            // what RUN --network=default is: host, none or a network's name
	HostNet  bool              // RUN --network=host is allowed where Network is something else

	// Base finds an image. name is as in the Dockerfile.
	Base func(ctx context.Context, name string, p ocispec.Platform) (*BaseImage, error)
}

// A BaseImage is what the graph has to know of one.
type BaseImage struct {
	Manifest digest.Digest
	Config   image.Config
}

// A Graph is what has to be done for one stage.
type Graph struct {
	Ops      []*Op        // inputs before their users
	Top      *Op          // whose state is the result
	Target   string       // the stage's name or number
	Config   image.Config // of the result, without RootFS, History and times
	History  []History    // of the result
	Warnings []string
}

// History is an entry of the result's history.
type History struct {
	ocispec.History
	Op   *Op  // nil where the instruction changes no files
	Base bool // the entry is a base image's
}

// stage is a stage being made of its instructions.
type stage struct {
	name    string
	config  image.Config
	history []History
	top     *Op
	env     []string // config.Env, then ARGs: what words are expanded with and RUN gets
	args    []string // names of ARGs, for history as Docker writes it
	cmdSet  bool     // CMD stands in this stage
	onbuild []string // triggers that the stage defines itself
}

type builder struct {
	Options
	file   *File
	lex    *shell.Lex
	global []string // ARGs before the first FROM, and the predefined ones
	stages map[int]*stage
	images map[string]*stage // of COPY --from=IMAGE
	ops    []*Op
	bases  map[string]*Op // one op per image and platform
	empty  *Op
}

// Build makes the graph for one target of f. Errors are *Error where a line is to blame.
func Build(ctx context.Context, f *File, o Options) (*Graph, error) {
	b := &builder{Options: o, file: f, lex: shell.NewLex(f.escape),
		stages: map[int]*stage{}, images: map[string]*stage{}, bases: map[string]*Op{}}
	target := len(f.stages) - 1
	if o.Target != "" {
		var ok bool
		if target, ok = b.find(o.Target, len(f.stages)); !ok {
			return nil, fault.Hint(fmt.Errorf("%s: no stage %q", f.Name, o.Target), "its stages: %s", strings.Join(b.names(), " "))
		}
	}
	if err := b.globals(target); err != nil {
		return nil, err
	}
	s, err := b.stage(ctx, target)
	if err != nil {
		return nil, err
	}
	g := &Graph{Ops: b.ops, Top: s.top, Target: s.name, Config: s.config, History: s.history, Warnings: f.Warnings}
	if len(o.Labels) > 0 {
		g.Config.Config.Labels = cloneMap(g.Config.Config.Labels)
		for k, v := range o.Labels {
			g.Config.Config.Labels[k] = v
		}
	}
	return g, nil
}

// find looks for a stage by name or number among the first n.
func (b *builder) find(name string, n int) (int, bool) {
	for i, s := range b.file.stages[:n] {
		if s.Name != "" && strings.EqualFold(s.Name, name) {
			return i, true
		}
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < n {
		return i, true
	}
	return 0, false
}

func (b *builder) names() (names []string) {
	for i, s := range b.file.stages {
		if s.Name == "" {
			s.Name = strconv.Itoa(i)
		}
		names = append(names, s.Name)
	}
	return names
}

// globals sets the predefined platform ARGs and those before the first FROM.
func (b *builder) globals(target int) error {
	name := b.file.stages[target].Name
	if name == "" {
		name = "default"
	}
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", PlatformName(b.Host)}, {"BUILDOS", b.Host.OS}, {"BUILDOSVERSION", b.Host.OSVersion},
		{"BUILDARCH", b.Host.Architecture}, {"BUILDVARIANT", b.Host.Variant},
		{"TARGETPLATFORM", PlatformName(b.Platform)}, {"TARGETOS", b.Platform.OS}, {"TARGETOSVERSION", b.Platform.OSVersion},
		{"TARGETARCH", b.Platform.Architecture}, {"TARGETVARIANT", b.Platform.Variant}, {"TARGETSTAGE", name},
	} {
		v := kv[1]
		if given, ok := b.Args[kv[0]]; ok {
			v = given
		}
		b.global = setenv(b.global, kv[0], v)
	}
	for _, c := range b.file.args {
		for _, a := range c.Args {
			v, given := b.Args[a.Key]
			if !given {
				if a.Value == nil {
					continue
				}
				var err error
				if v, _, err = b.lex.ProcessWord(*a.Value, shell.EnvsFromSlice(b.global)); err != nil {
					return b.fail(c.Location(), fmt.Sprint(&c), err)
				}
			}
			b.global = setenv(b.global, a.Key, v)
		}
	}
	return nil
}

// PlatformName is os/architecture[/variant].
func PlatformName(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// stage makes stage i, and what it is made from, unless that is done.
func (b *builder) stage(ctx context.Context, i int) (*stage, error) {
	if s := b.stages[i]; s != nil {
		return s, nil
	}
	in := b.file.stages[i]
	at := func(err error) error { return b.fail(in.Location, in.SourceCode, err) }
	base, _, err := b.lex.ProcessWord(in.BaseName, shell.EnvsFromSlice(b.global))
	if err != nil {
		return nil, at(err)
	}
	if base == "" {
		return nil, fault.Hint(at(errors.New("the base's name is empty")), "an ARG before the first FROM, or --build-arg, sets it")
	}
	p := b.Platform
	if in.Platform != "" {
		name, _, err := b.lex.ProcessWord(in.Platform, shell.EnvsFromSlice(b.global))
		if err != nil {
			return nil, at(err)
		}
		if p, err = image.ParsePlatform(name); err != nil {
			return nil, at(err)
		}
	}
	s := &stage{name: in.Name}
	if s.name == "" {
		s.name = strconv.Itoa(i)
	}
	var triggers []string
	if j, ok := b.find(base, i); ok && !isNumber(base) {
		parent, err := b.stage(ctx, j)
		if err != nil {
			return nil, err
		}
		s.config, s.history, s.top = clone(parent.config), slices.Clone(parent.history), parent.top
		s.env, s.args = slices.Clone(parent.env), slices.Clone(parent.args)
		triggers = parent.onbuild
		s.config.OnBuild = nil
	} else {
		if err := b.from(ctx, s, base, p, in.Location, in.SourceCode); err != nil {
			return nil, err
		}
		triggers = s.config.OnBuild
		s.config.OnBuild = nil
		if _, ok := getenv(s.config.Config.Env, "PATH"); !ok {
			s.config.Config.Env = append(s.config.Config.Env, "PATH="+image.DefaultPath)
		}
		s.env = slices.Clone(s.config.Config.Env)
	}
	for _, t := range triggers {
		c, err := b.trigger(t)
		if err != nil {
			return nil, b.fail(in.Location, "ONBUILD "+t, err)
		}
		if err := b.apply(ctx, s, i, c, in.Location, "ONBUILD "); err != nil {
			return nil, err
		}
	}
	for _, c := range in.Commands {
		if err := b.apply(ctx, s, i, c, c.Location(), ""); err != nil {
			return nil, err
		}
	}
	b.stages[i] = s
	return s, nil
}

func isNumber(s string) bool { _, err := strconv.Atoi(s); return err == nil }

// trigger parses an ONBUILD instruction of a base.
func (b *builder) trigger(text string) (instructions.Command, error) {
	res, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	if len(res.AST.Children) != 1 {
		return nil, fmt.Errorf("found %d instructions in one ONBUILD, want 1", len(res.AST.Children))
	}
	return instructions.ParseCommand(res.AST.Children[0])
}

// from starts a stage with an image or with nothing.
func (b *builder) from(ctx context.Context, s *stage, name string, p ocispec.Platform, where []parser.Range, text string) error {
	if name == "scratch" {
		if b.empty == nil {
			b.empty = b.add(&Op{Stage: s.name, Line: first(where), End: last(where), Text: "FROM scratch", Do: &Scratch{}})
		}
		s.top = b.empty
		s.config.OS, s.config.Architecture, s.config.Variant = p.OS, p.Architecture, p.Variant
		return nil
	}
	img, err := b.Base(ctx, name, p)
	if err != nil {
		return b.fail(where, text, err)
	}
	s.config = clone(img.Config)
	for _, h := range s.config.History {
		s.history = append(s.history, History{History: h, Base: true})
	}
	s.config.History = nil
	key := string(img.Manifest)
	if b.bases[key] == nil {
		b.bases[key] = b.add(&Op{Stage: s.name, Line: first(where), End: last(where), Text: text,
			Do: &Base{Name: name, Manifest: img.Manifest, Platform: PlatformName(p)}})
	}
	s.top = b.bases[key]
	return nil
}

// source is the state that --from names, as seen by stage i.
func (b *builder) source(ctx context.Context, i int, name string, where []parser.Range, text string) (*Op, error) {
	if j, ok := b.find(name, i); ok {
		s, err := b.stage(ctx, j)
		if err != nil {
			return nil, err
		}
		return s.top, nil
	}
	if j, ok := b.find(name, len(b.file.stages)); ok {
		return nil, b.fail(where, text, fmt.Errorf("--from=%s: that stage stands in line %d, want one above this stage", name, first(b.file.stages[j].Location)))
	}
	if isNumber(name) {
		return nil, b.fail(where, text, fmt.Errorf("--from=%s: no such stage above this one", name))
	}
	if b.images[name] == nil {
		s := &stage{name: name}
		if err := b.from(ctx, s, name, b.Platform, where, text); err != nil {
			return nil, err
		}
		b.images[name] = s
	}
	return b.images[name].top, nil
}

// add gives an op its number, its file's name and its definition.
func (b *builder) add(o *Op) *Op {
	o.ID, o.File = len(b.ops), b.file.Name
	o.define()
	b.ops = append(b.ops, o)
	return o
}

func (b *builder) fail(where []parser.Range, text string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{File: b.file.Name, Line: first(where), Text: Short(text), Err: err}
}

// clone copies a config as deep as instructions change it.
func clone(c image.Config) image.Config {
	c.Config.Env = slices.Clone(c.Config.Env)
	c.OnBuild = slices.Clone(c.OnBuild)
	c.Config.Labels = cloneMap(c.Config.Labels)
	c.Config.Volumes = cloneMap(c.Config.Volumes)
	c.Config.ExposedPorts = cloneMap(c.Config.ExposedPorts)
	return c
}

// cloneMap copies m, or makes one where there is none.
func cloneMap[V any](m map[string]V) map[string]V {
	c := make(map[string]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func getenv(env []string, key string) (string, bool) {
	for _, e := range env {
		if k, v, _ := strings.Cut(e, "="); k == key {
			return v, true
		}
	}
	return "", false
}

// setenv replaces or adds a variable. env is not shared with others.
func setenv(env []string, key, value string) []string {
	for i, e := range env {
		if k, _, _ := strings.Cut(e, "="); k == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

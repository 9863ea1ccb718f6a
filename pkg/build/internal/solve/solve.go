// SPDX-License-Identifier: Apache-2.0

// Package solve brings the operations of a graph about: what has its inputs is started, independent ones in
// parallel, and what the cache knows is not done again. It decides only that; a [Worker] does the work.
//
// Keys are made of the action, of the layers that the inputs turned out to be, and, where files are taken from
// the build context, of their content. So a step that was done again with an equal result does not spoil what
// comes after it. COPY from another stage is looked up twice: by the layers of that stage, which costs nothing,
// then by the files it takes, for which the stage has to be there.
package solve

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/ctr-tools/ctr/pkg/build/internal/cache"
	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
)

// A Layer is a layer of a state. It may exist as a snapshot, as a blob, or as both.
type Layer struct {
	DiffID digest.Digest
	Blob   *ocispec.Descriptor // nil: none was made
}

// A State is what an operation results in: layers, lowest first.
type State struct{ Layers []Layer }

// Push is the state with one more layer; the old one stays as it is.
func (s State) Push(l Layer) State {
	return State{append(s.Layers[:len(s.Layers):len(s.Layers)], l)}
}

// DiffIDs are those of the layers, lowest first.
func (s State) DiffIDs() []digest.Digest {
	ids := make([]digest.Digest, len(s.Layers))
	for i, l := range s.Layers {
		ids[i] = l.DiffID
	}
	return ids
}

// id spells the state for keys.
func (s State) id() string {
	data, err := json.Marshal(s.DiffIDs())
	if err != nil {
		panic("digests have a JSON form: " + err.Error())
	}
	return string(data)
}

// A Worker knows how the things are done that the solver orders.
type Worker interface {
	// Base is the state of an image's layers.
	Base(ctx context.Context, op *graph.Op) (State, error)
	// Have says whether a layer that the cache names can still be had, on top of the state it was made on.
	Have(ctx context.Context, on State, l Layer) bool
	// Context is the digest of what op takes from the build context; empty if it takes nothing.
	Context(ctx context.Context, op *graph.Op) (digest.Digest, error)
	// Source is the digest of what the Copy op takes from a state.
	Source(ctx context.Context, op *graph.Op, s State) (digest.Digest, error)
	// Do carries op out. It returns nil if nothing changed. blob says that the result will be exported.
	Do(ctx context.Context, op *graph.Op, parent State, sources []State, blob bool) (*Layer, error)
}

// Options for Run.
type Options struct {
	Cache    *cache.Cache
	NoCache  bool     // do everything again, and remember it
	Common   []string // inputs of every key: epoch, platform
	Jobs     int      // operations at work at the same time; 0: one for each processor, at least 2
	Started  func(*graph.Op)
	Finished func(op *graph.Op, cached bool, took time.Duration)
}

// A Result is what became of an operation.
type Result struct {
	State   State
	Changed bool // the last layer of State is this operation's
}

type solver struct {
	Options
	w      Worker
	export map[*graph.Op]bool
	done   map[*graph.Op]chan struct{}
	slots  chan struct{}
	same   singleflight.Group // equal keys at the same time: one does it
}

// Run does what g needs and returns each operation's result. The first failure ends it.
func Run(ctx context.Context, g *graph.Graph, w Worker, o Options) (map[*graph.Op]Result, error) {
	if o.Jobs == 0 {
		o.Jobs = max(2, runtime.GOMAXPROCS(0))
	}
	s := &solver{Options: o, w: w, export: map[*graph.Op]bool{}, done: map[*graph.Op]chan struct{}{}, slots: make(chan struct{}, o.Jobs)}
	for op := g.Top; op != nil; op = op.Parent {
		s.export[op] = true
	}
	results := make([]Result, len(g.Ops)) // one is written before its op's channel is closed
	for _, op := range g.Ops {
		s.done[op] = make(chan struct{})
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, op := range g.Ops {
		group.Go(func() error {
			for _, in := range op.Inputs() {
				select {
				case <-s.done[in]:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			in := func(op *graph.Op) Result { return results[op.ID] }
			r, err := s.op(ctx, op, in)
			if err != nil {
				return failed(op, err)
			}
			results[op.ID] = r
			close(s.done[op])
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := map[*graph.Op]Result{}
	for _, op := range g.Ops {
		all[op] = results[op.ID]
	}
	return all, nil
}

// failed blames the op's line, unless it only stopped because another op failed or the user said so.
func failed(op *graph.Op, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return op.Fail(err)
}

func (s *solver) op(ctx context.Context, op *graph.Op, in func(*graph.Op) Result) (Result, error) {
	switch op.Do.(type) {
	case *graph.Scratch:
		return Result{}, nil
	case *graph.Base:
		st, err := s.w.Base(ctx, op)
		return Result{State: st}, err
	}
	parent := in(op.Parent).State
	var sources []State
	for _, src := range op.Sources {
		sources = append(sources, in(src).State)
	}
	start := time.Now()
	if s.Started != nil {
		s.Started(op)
	}
	entry, cached, err := s.solve(ctx, op, parent, sources)
	if err != nil {
		return Result{}, err
	}
	if s.Finished != nil {
		s.Finished(op, cached, time.Since(start))
	}
	if entry.DiffID == "" {
		return Result{State: parent}, nil
	}
	l := Layer{DiffID: entry.DiffID, Blob: entry.Layer}
	return Result{State: parent.Push(l), Changed: true}, nil
}

// solve finds the operation's result in the cache or has it made.
func (s *solver) solve(ctx context.Context, op *graph.Op, parent State, sources []State) (cache.Entry, bool, error) {
	inputs := append([]string{string(graph.Spell(op.Do))}, s.Common...)
	cp, isCopy := op.Do.(*graph.Copy)
	if !isCopy || !cp.Link {
		inputs = append(inputs, "on "+parent.id())
	}
	taken, err := s.w.Context(ctx, op)
	if err != nil {
		return cache.Entry{}, false, err
	}
	if taken != "" {
		inputs = append(inputs, "context "+taken.String())
	}
	quick := inputs[:len(inputs):len(inputs)]
	for _, src := range sources {
		quick = append(quick, "from "+src.id())
	}
	key := cache.Key(quick...)
	if e, ok := s.get(ctx, key, parent); ok {
		return e, true, nil
	}
	type outcome struct {
		entry  cache.Entry
		cached bool
	}
	v, err, _ := s.same.Do(key.String(), func() (any, error) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		keys := []cache.Entry{{Key: key, Inputs: quick}}
		if isCopy && len(sources) == 1 {
			content, err := s.w.Source(ctx, op, sources[0])
			if err != nil {
				return nil, err
			}
			slow := append(inputs, "files "+content.String())
			keys = append(keys, cache.Entry{Key: cache.Key(slow...), Inputs: slow})
			if e, ok := s.get(ctx, keys[1].Key, parent); ok {
				err := s.put(op, keys[:1], e.DiffID, e.Layer)
				return outcome{e, true}, err
			}
		}
		l, err := s.w.Do(ctx, op, parent, sources, s.export[op])
		if err != nil {
			return nil, err
		}
		var e cache.Entry
		if l != nil {
			e.DiffID, e.Layer = l.DiffID, l.Blob
		}
		return outcome{e, false}, s.put(op, keys, e.DiffID, e.Layer)
	})
	if err != nil {
		return cache.Entry{}, false, err
	}
	out := v.(outcome)
	return out.entry, out.cached, nil
}

func (s *solver) get(ctx context.Context, key digest.Digest, parent State) (cache.Entry, bool) {
	if s.NoCache {
		return cache.Entry{}, false
	}
	e, ok := s.Cache.Get(key)
	if ok && e.DiffID != "" && !s.w.Have(ctx, parent, Layer{e.DiffID, e.Layer}) {
		return cache.Entry{}, false
	}
	return e, ok
}

// put stores one result under several keys.
func (s *solver) put(op *graph.Op, keys []cache.Entry, diffID digest.Digest, blob *ocispec.Descriptor) error {
	for _, e := range keys {
		e.Text, e.DiffID, e.Layer = graph.Short(op.Text), diffID, blob
		if err := s.Cache.Put(e); err != nil {
			return err
		}
	}
	return nil
}

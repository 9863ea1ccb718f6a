// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/build/internal/exec"
	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/build/internal/solve"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/rootfd"
	"github.com/ctr-tools/ctr/pkg/snapshot"
)

// worker does what the solver orders: it knows where layers are kept.
type worker struct {
	b       *builder
	w       *layout.Writer
	session *session
	snaps   *snapshot.Session
	runtime exec.Runtime

	mu    sync.Mutex
	blobs map[digest.Digest]*layout.Layout // where the blobs of base images are, by digest
}

// worker makes the session of the build and removes what dead builds left.
func (b *builder) worker(w *layout.Writer) (*worker, error) {
	dir, err := runtimeDir(b.Root, b.Run)
	if err != nil {
		return nil, err
	}
	k := &worker{b: b, w: w, blobs: map[digest.Digest]*layout.Layout{}, runtime: exec.Runtime{Name: b.Runtime, Dir: dir}}
	if err := place.Private(filepath.Join(b.Run, "build")); err != nil {
		return nil, err
	}
	if err := sweep(b.Root, k.runtime); err != nil {
		return nil, fmt.Errorf("remove what a killed build left: %w", err)
	}
	store, err := snapshot.Open(place.Snapshots(b.Root))
	if err != nil {
		return nil, err
	}
	if k.snaps, err = store.Begin(); err != nil {
		return nil, err
	}
	if k.session, err = newSession(b.Root); err != nil {
		k.snaps.Close()
		return nil, err
	}
	return k, nil
}

func (k *worker) close() {
	k.session.close()
	k.snaps.Close()
}

// Base implements solve.Worker.
func (k *worker) Base(_ context.Context, op *graph.Op) (solve.State, error) {
	found, st := k.b.bases.state(op.Do.(*graph.Base).Manifest)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range st.Layers {
		k.blobs[l.Blob.Digest] = found.layout
	}
	return st, nil
}

// errNoBlob says that a layer exists as a snapshot only, and that the snapshot is not there.
var errNoBlob = errors.New("neither snapshot nor blob is there")

// open opens a layer's blob wherever it is.
func (k *worker) open(ctx context.Context, l solve.Layer) (io.ReadCloser, error) {
	if l.Blob == nil {
		return nil, errNoBlob
	}
	k.mu.Lock()
	from := k.blobs[l.Blob.Digest]
	k.mu.Unlock()
	if from == nil {
		from = k.b.layout
	}
	return from.Fetch(ctx, *l.Blob)
}

// stack unpacks what is not unpacked yet of a state.
func (k *worker) stack(ctx context.Context, st solve.State) (exec.State, error) {
	s, err := snapshot.Overlay{}.Stack(ctx, k.snaps, k.layers(st))
	if err != nil {
		return exec.State{}, err
	}
	return exec.State{Lower: s.Lower, Root: s.Root}, nil
}

func (k *worker) layers(st solve.State) (layers []snapshot.Layer) {
	for _, l := range st.Layers {
		in := snapshot.Layer{DiffID: l.DiffID, Open: func(ctx context.Context) (io.ReadCloser, error) { return k.open(ctx, l) }}
		if l.Blob != nil {
			in.MediaType = l.Blob.MediaType
		}
		layers = append(layers, in)
	}
	return layers
}

// Have implements solve.Worker.
func (k *worker) Have(ctx context.Context, on solve.State, l solve.Layer) bool {
	if l.Blob != nil && k.b.layout.Has(l.Blob.Digest) {
		return true
	}
	l.Blob = nil
	_, err := k.stack(ctx, on.Push(l))
	return err == nil
}

// Context implements solve.Worker.
func (k *worker) Context(ctx context.Context, op *graph.Op) (digest.Digest, error) {
	switch do := op.Do.(type) {
	case *graph.Copy:
		if do.Context && len(do.Paths) > 0 {
			return k.b.context.tree.CopyDigest(ctx, do)
		}
	case *graph.Run:
		all := ""
		for _, m := range do.Mounts {
			if m.Context && m.Type == "bind" {
				d, err := k.b.context.tree.Digest(ctx, []string{m.Source}, nil)
				if err != nil {
					return "", err
				}
				all += d.String() + "\n"
			}
		}
		if all != "" {
			return digest.FromString(all), nil
		}
	}
	return "", nil
}

// Source implements solve.Worker.
func (k *worker) Source(ctx context.Context, op *graph.Op, st solve.State) (digest.Digest, error) {
	t, done, err := k.view(ctx, op, st)
	if err != nil {
		return "", err
	}
	defer done()
	return t.CopyDigest(ctx, op.Do.(*graph.Copy))
}

// view opens a state to copy from.
func (k *worker) view(ctx context.Context, op *graph.Op, st solve.State) (*exec.Tree, func(), error) {
	low, err := k.stack(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	s, err := exec.NewScratch(k.session.dir)
	if err != nil {
		return nil, nil, err
	}
	root, err := s.View(low)
	if err != nil {
		s.Remove()
		return nil, nil, err
	}
	t := exec.StateTree(root, "stage "+op.Sources[0].Stage)
	return t, func() { t.Close(); s.Remove() }, nil
}

// Do implements solve.Worker.
func (k *worker) Do(ctx context.Context, op *graph.Op, parent solve.State, sources []solve.State, blob bool) (*solve.Layer, error) {
	if os.Geteuid() != 0 {
		return nil, fault.Hint(fmt.Errorf("building as a user other than root is not supported yet: %w", fs.ErrPermission), "sudo ctr-build …")
	}
	on, err := k.stack(ctx, parent)
	if err != nil {
		return nil, err
	}
	do, isRun := op.Do.(*graph.Run)
	s, unlock, err := k.scratch(isRun && k.b.Keep)
	if err != nil {
		return nil, err
	}
	defer unlock()
	err = k.act(ctx, op, on, sources, s)
	if err != nil && isRun && k.b.Keep && ctx.Err() == nil && s.HasBundle() {
		if e := k.keep(ctx, do, append([]solve.State{parent}, sources...), s); e != nil {
			s.Remove() // better lost than kept with a secret in it
			return nil, errors.Join(err, e)
		}
		return nil, fault.Hint(err, "the step is kept: ctr-run run --bundle %s NAME runs it again", exec.BundlePath(s.Path("")))
	}
	defer s.Remove()
	if err != nil {
		return nil, err
	}
	var put exec.Put
	if blob {
		put = k.w.Put
	}
	made, ok, err := exec.Pack(ctx, s.Upper(), k.b.settings(), put)
	if err != nil || !ok {
		return nil, err
	}
	if err := k.snaps.Adopt(ctx, parent.DiffIDs(), made.DiffID, s.Upper(), snapshot.Overlay{}); err != nil {
		return nil, err
	}
	l := &solve.Layer{DiffID: made.DiffID}
	if blob {
		l.Blob = &made.Descriptor
	}
	return l, nil
}

// scratch makes the directory of an operation: in the session's, or, locked, where failed steps are kept.
func (k *worker) scratch(keep bool) (s *exec.Scratch, unlock func(), err error) {
	if !keep {
		s, err = exec.NewScratch(k.session.dir)
		return s, func() {}, err
	}
	if err := os.MkdirAll(failedDir(k.b.Root), 0o700); err != nil {
		return nil, nil, err
	}
	sweeper, err := atomicfile.LockPath(tempDir(k.b.Root), true) // no sweep meets it unlocked
	if err != nil {
		return nil, nil, err
	}
	defer sweeper.Unlock()
	if s, err = exec.NewScratch(failedDir(k.b.Root)); err != nil {
		return nil, nil, err
	}
	l, err := atomicfile.TryLockPath(s.Path(""), true)
	if err != nil {
		s.Remove()
		return nil, nil, err
	}
	return s, l.Unlock, nil
}

// keep makes the bundle of a failed step last: without secrets, and with its layers safe from gc.
func (k *worker) keep(ctx context.Context, do *graph.Run, states []solve.State, s *exec.Scratch) error {
	dir := exec.BundlePath(s.Path(""))
	if err := exec.Redact(dir, do); err != nil {
		return err
	}
	for _, st := range states {
		have, err := snapshot.Overlay{}.Stack(ctx, k.snaps, k.layers(st))
		if err != nil {
			return err
		}
		if err := k.snaps.Use(have, dir); err != nil {
			return err
		}
	}
	return os.WriteFile(s.Path(keptMark), nil, 0o600)
}

// act writes the operation's changes into the scratch directory's upper.
func (k *worker) act(ctx context.Context, op *graph.Op, on exec.State, sources []solve.State, s *exec.Scratch) error {
	if do, ok := op.Do.(*graph.Run); ok {
		return k.run(ctx, op, do, on, sources, s)
	}
	var dst *rootfd.Root
	var err error
	cp, isCopy := op.Do.(*graph.Copy)
	if isCopy && cp.Link {
		dst, err = s.Alone()
	} else {
		dst, err = s.Change(on)
	}
	if err != nil {
		return err
	}
	defer dst.Close()
	switch do := op.Do.(type) {
	case *graph.Mkdir:
		return exec.MakeDir(do, dst)
	case *graph.Copy:
		src := k.b.context.tree
		if len(sources) > 0 {
			t, done, err := k.view(ctx, op, sources[0])
			if err != nil {
				return err
			}
			defer done()
			src = t
		}
		return exec.Copy(ctx, do, src, dst, k.b.settings())
	}
	return fmt.Errorf("no way to carry out %T", op.Do)
}

func (k *worker) run(ctx context.Context, op *graph.Op, do *graph.Run, on exec.State, sources []solve.State, s *exec.Scratch) error {
	step := exec.Step{Do: do, State: on, Context: k.b.context.tree, Caches: mountsDir(k.b.Root), Secrets: k.b.Secrets,
		Scratch: s, Set: k.b.settings(), Resolv: hostNames}
	for _, src := range sources {
		st, err := k.stack(ctx, src)
		if err != nil {
			return err
		}
		step.Sources = append(step.Sources, st)
	}
	out := k.b.say.output(op)
	step.Output = out
	err := k.runtime.Run(ctx, step)
	out.end(err != nil)
	return err
}

// hostNames are the host's own hosts and resolv.conf: a step on the host's network finds what the host finds.
func hostNames() (hosts, resolv []byte) {
	hosts, _ = os.ReadFile("/etc/hosts")
	resolv, _ = os.ReadFile("/etc/resolv.conf")
	return hosts, resolv
}

// blob makes the compressed layer of a snapshot that has none yet.
func (k *worker) blob(ctx context.Context, below solve.State, l solve.Layer) (ocispec.Descriptor, error) {
	if l.Blob != nil && k.b.layout.Has(l.Blob.Digest) {
		return *l.Blob, nil
	}
	if l.Blob != nil {
		k.mu.Lock()
		from := k.blobs[l.Blob.Digest]
		k.mu.Unlock()
		if from != nil { // a base in another layout
			r, err := from.Fetch(ctx, *l.Blob)
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			defer r.Close()
			return *l.Blob, k.w.PutVerified(ctx, *l.Blob, r)
		}
	}
	st, err := k.stack(ctx, below.Push(solve.Layer{DiffID: l.DiffID}))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	made, ok, err := exec.Pack(ctx, st.Lower[0], k.b.settings(), k.w.Put)
	if err == nil && (!ok || made.DiffID != l.DiffID) {
		err = fault.As(fault.ErrUnverified, fmt.Errorf("snapshot of layer %s: packed again it is %s", l.DiffID, made.DiffID))
		err = fault.Hint(err, "ctr-build --no-cache")
	}
	return made.Descriptor, err
}

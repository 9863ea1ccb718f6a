// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/layer"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// A Layer of an image, lowest first wherever several are given.
type Layer struct {
	DiffID    digest.Digest
	MediaType string
	// Open opens the blob. Its reader verifies what it reads (layout.Fetch) and reports at its end.
	Open func(context.Context) (io.ReadCloser, error)
}

// Limits of what one layer may be; zero values are package layer's.
type Limits struct {
	MaxBytes, MaxEntries, MaxRatio int64
}

// Overlay is the form of a root filesystem that overlayfs puts together.
type Overlay struct {
	UserXattr bool // for mounts with userxattr, as users other than root make
	Limits    Limits
}

// Copy is the form of a root filesystem of plain files of its own.
type Copy struct{ Limits Limits }

// A Stack is the layers of a root filesystem, unpacked.
type Stack struct {
	Lower []string // trees, topmost first; at least one
	Root  string   // the tree whose root directory has the metadata of the merged one; empty: none, 0755 root:root
	keys  []string
}

// ChainID is the image-spec's: the digest of a stack of diffIDs, lowest first.
func ChainID(diffIDs ...digest.Digest) digest.Digest {
	chain := diffIDs[0]
	for _, d := range diffIDs[1:] {
		chain = digest.FromString(chain.String() + " " + d.String())
	}
	return chain
}

// jobs is how many layers are unpacked at a time: each keeps about three goroutines busy.
func jobs() int { return max(2, min(4, runtime.GOMAXPROCS(0))) }

// Stack unpacks the layers that are not there, side by side, and returns them in overlayfs's order.
func (f Overlay) Stack(ctx context.Context, t *Session, layers []Layer) (*Stack, error) {
	if len(layers) == 0 {
		return t.s.empty(f)
	}
	m := &making{s: t.s, form: f, layers: layers, slots: make([]slot, len(layers))}
	for i, l := range layers {
		if err := l.DiffID.Validate(); err != nil {
			return nil, fmt.Errorf("diffID %q: %w", l.DiffID, err)
		}
		m.slots[i].done = make(chan struct{})
		if i == 0 {
			m.slots[i].chain = l.DiffID
		} else {
			m.slots[i].chain = ChainID(m.slots[i-1].chain, l.DiffID)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs()) // Go starts them in order: whoever waits, waits for one that has started
	for i := range layers {
		g.Go(func() error {
			if err := m.layer(ctx, i); err != nil {
				return fmt.Errorf("layer %d (%s): %w", i+1, layers[i].DiffID, err)
			}
			close(m.slots[i].done)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	st := &Stack{}
	for i := len(layers) - 1; i >= 0; i-- {
		sl := &m.slots[i]
		st.Lower = append(st.Lower, t.s.path(sl.key, treeDir))
		st.keys = append(st.keys, sl.key)
		if st.Root == "" && sl.meta.NamesRoot {
			st.Root = t.s.path(sl.key, treeDir)
		}
		if sl.meta.OpaqueRoot {
			break
		}
	}
	t.s.settle(st.keys)
	return st, nil
}

// empty is the stack of an image without layers: overlayfs wants one lower directory.
func (s *Store) empty(f Overlay) (*Stack, error) {
	const name = "empty"
	if err := os.MkdirAll(s.path(name, treeDir), 0o755); err != nil {
		return nil, err
	}
	return &Stack{Lower: []string{s.path(name, treeDir)}}, nil
}

// A slot is one layer of a stack that is being made.
type slot struct {
	chain digest.Digest
	key   string        // of its entry, when done
	meta  *meta         // the same
	done  chan struct{} // closed when the entry is there
}

type making struct {
	s      *Store
	form   Overlay
	layers []Layer
	slots  []slot
}

// find looks for the entry of layer i: made on these very parents, or on any and not relying on them.
func (m *making) find(i int) (bool, error) {
	sl := &m.slots[i]
	for _, k := range []string{key(sl.chain, m.form), key(m.layers[i].DiffID, m.form)} {
		have, err := m.s.read(k)
		if err != nil {
			return false, err
		}
		if have != nil && (have.ChainID == sl.chain || !have.Relies) && have.DiffID == m.layers[i].DiffID {
			sl.key, sl.meta = k, have
			return true, nil
		}
	}
	return false, nil
}

func (m *making) layer(ctx context.Context, i int) (err error) {
	if ok, err := m.find(i); ok || err != nil {
		return err
	}
	unlock, err := m.s.lockChain(ctx, key(m.slots[i].chain, m.form))
	if err != nil {
		return err
	}
	defer unlock()
	if ok, err := m.find(i); ok || err != nil {
		return err // made while this process waited
	}
	tmp, done, err := m.s.temp()
	if err != nil {
		return err
	}
	defer done() // after put, only what lost a race is removed
	tree := filepath.Join(tmp, treeDir)
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	var opened []*rootfd.Root
	defer func() {
		for _, r := range opened {
			r.Close()
		}
	}()
	res, err := apply(ctx, m.layers[i], tree, layer.Options{
		Form:     layer.Overlay{UserXattr: m.form.UserXattr},
		Rootless: os.Geteuid() != 0,
		MaxBytes: m.form.Limits.MaxBytes, MaxEntries: m.form.Limits.MaxEntries, MaxRatio: m.form.Limits.MaxRatio,
		Parents: func(ctx context.Context) ([]*rootfd.Root, error) {
			opened, err = m.parents(ctx, i)
			return opened, err
		},
	})
	if err != nil {
		return err
	}
	made := &meta{
		DiffID: m.layers[i].DiffID, ChainID: m.slots[i].chain, Relies: res.Relies,
		NamesRoot: res.NamesRoot, OpaqueRoot: res.OpaqueRoot, Bytes: res.Bytes, Entries: res.Entries,
	}
	k := key(made.DiffID, m.form)
	if made.Relies {
		k = key(made.ChainID, m.form)
	}
	if err := m.s.put(tmp, k, made); err != nil {
		return err
	}
	m.slots[i].key, m.slots[i].meta = k, made
	return nil
}

// parents waits for the layers below i and opens them, topmost first.
func (m *making) parents(ctx context.Context, i int) (roots []*rootfd.Root, err error) {
	for j := i - 1; j >= 0; j-- {
		select {
		case <-m.slots[j].done:
		case <-ctx.Done():
			return roots, context.Cause(ctx)
		}
		r, err := rootfd.Open(m.s.path(m.slots[j].key, treeDir))
		if err != nil {
			return roots, err
		}
		roots = append(roots, r)
		if m.slots[j].meta.OpaqueRoot {
			break
		}
	}
	return roots, nil
}

func apply(ctx context.Context, l Layer, tree string, o layer.Options) (layer.Result, error) {
	r, err := l.Open(ctx)
	if err != nil {
		return layer.Result{}, err
	}
	defer r.Close()
	root, err := rootfd.Open(tree)
	if err != nil {
		return layer.Result{}, err
	}
	defer root.Close()
	o.MediaType, o.DiffID = l.MediaType, l.DiffID
	return layer.Apply(ctx, r, root, o)
}

// Unpack unpacks the layers over each other into the empty directory dir.
func (f Copy) Unpack(ctx context.Context, layers []Layer, dir string) error {
	// Archives rarely say anything about the root directory: the same every time, then.
	epoch := time.Unix(0, 0)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chtimes(dir, epoch, epoch); err != nil {
		return err
	}
	for i, l := range layers {
		_, err := apply(ctx, l, dir, layer.Options{
			Form: layer.Plain{}, Rootless: os.Geteuid() != 0,
			MaxBytes: f.Limits.MaxBytes, MaxEntries: f.Limits.MaxEntries, MaxRatio: f.Limits.MaxRatio,
		})
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", i+1, l.DiffID, err)
		}
	}
	return nil
}

// Adopt takes the directory upper, the changes of a container over the layers parents (lowest first), as the
// entry of the layer diffID that was written from it, without a copy. upper has to be on the store's file
// system and is gone afterwards. An entry that is there already stands.
func (t *Session) Adopt(ctx context.Context, parents []digest.Digest, diffID digest.Digest, upper string, f Overlay) error {
	chain := ChainID(append(append([]digest.Digest{}, parents...), diffID)...)
	k := key(chain, f)
	unlock, err := t.s.lockChain(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	if m, err := t.s.read(k); err != nil || m != nil {
		return errors.Join(err, removeAll(upper))
	}
	tmp, done, err := t.s.temp()
	if err != nil {
		return err
	}
	defer done()
	if err := os.Rename(upper, filepath.Join(tmp, treeDir)); err != nil {
		return err
	}
	return t.s.put(tmp, k, &meta{DiffID: diffID, ChainID: chain, Relies: true})
}

// settleAfter is when written pages have most likely reached the disk without us, so that a sync is cheap.
const settleAfter = time.Minute

// settle marks entries as synced that were made in this boot, a while ago. It is a favour to the next boot:
// failing costs nothing but time.
func (s *Store) settle(keys []string) {
	var old []string
	for _, k := range keys {
		if _, err := os.Lstat(s.path(k, syncedFile)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if st, err := os.Stat(s.path(k, metaFile)); err == nil && time.Since(st.ModTime()) > settleAfter {
			old = append(old, k)
		}
	}
	if len(old) == 0 {
		return
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return
	}
	defer d.Close()
	if unix.Syncfs(int(d.Fd())) != nil {
		return
	}
	for _, k := range old {
		if f, err := os.OpenFile(s.path(k, syncedFile), os.O_WRONLY|os.O_CREATE, 0o600); err == nil {
			f.Close()
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/build/internal/solve"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/toolkit"
	"github.com/ctr-tools/ctr/pkg/transfer"
)

// bases finds images that stages start from or copy from.
type bases struct {
	b     *builder
	mu    sync.Mutex
	found map[string]*base // by manifest digest
}

// A base is an image in a layout.
type base struct {
	layout *layout.Layout
	image  *image.Image
}

// get finds an image in the default layout, or in the one that an operand names. One that is missing there
// is fetched by ctr-fetch.
func (s *bases) get(ctx context.Context, name string, p ocispec.Platform) (*graph.BaseImage, error) {
	o, err := image.ParseOperand(name)
	if err != nil {
		return nil, err
	}
	if o.Kind != image.KindReference && o.Kind != image.KindLayout {
		return nil, fault.Hint(fmt.Errorf("%s: an archive, want a reference or oci:DIR:NAME", name), "ctr-fetch %s copies it into the default layout", name)
	}
	var found *base
	if fetchable := o.Kind == image.KindReference && o.Name != ""; !s.b.Pull || !fetchable {
		if found, err = s.load(ctx, o, p); errors.Is(err, fs.ErrNotExist) && fetchable {
			found, err = s.fetch(ctx, o, p)
		}
	} else {
		found, err = s.fetch(ctx, o, p)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := found.image.Descriptor.Digest
	s.found[d.String()] = found
	return &graph.BaseImage{Manifest: d, Config: found.image.Config}, nil
}

func (s *bases) load(ctx context.Context, o image.Operand, p ocispec.Platform) (*base, error) {
	l, d, err := transfer.OpenOperand(ctx, s.b.Root, o)
	if err != nil {
		return nil, err
	}
	img, err := image.Load(ctx, l, d, &p)
	if err != nil {
		return nil, err
	}
	return &base{l, img}, nil
}

// fetch has ctr-fetch copy the image into the default layout.
func (s *bases) fetch(ctx context.Context, o image.Operand, p ocispec.Platform) (*base, error) {
	ref := o.Name
	s.b.say.line("fetch " + image.Familiar(ref))
	args := []string{"--layout", s.b.layout.Dir(), "--platform", graph.PlatformName(p), ref}
	if _, err := toolkit.Output(ctx, "ctr-fetch", args...); err != nil {
		var f *toolkit.Failure
		if errors.As(err, &f) {
			err = fault.Exit{Status: f.Status, Err: fmt.Errorf("base %s is not in the layout and cannot be fetched: %w", image.Familiar(ref), err)}
		}
		return nil, err
	}
	return s.load(ctx, o, p)
}

// state is the image as the solver sees it.
func (s *bases) state(manifest digest.Digest) (*base, solve.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.found[manifest.String()]
	var st solve.State
	for i, d := range found.image.Config.RootFS.DiffIDs {
		st = st.Push(solve.Layer{DiffID: d, Blob: &found.image.Manifest.Layers[i]})
	}
	return found, st
}

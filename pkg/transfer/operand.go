// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// OpenOperand finds an image that is on this machine: a reference in the default layout below root, or an image
// in another layout. An image that is not there is fs.ErrNotExist, with the command that gets it as a hint.
func OpenOperand(ctx context.Context, root string, o image.Operand) (*layout.Layout, ocispec.Descriptor, error) {
	dir := o.Path
	switch o.Kind {
	case image.KindReference:
		dir = place.Images(root)
	case image.KindLayout:
	default:
		return nil, ocispec.Descriptor{}, fault.Hint(fault.Usagef("%s: an archive, want an image in an image layout", o), "ctr-fetch %s", toolkit.Quote([]string{o.String()}))
	}
	l, err := layout.Open(dir)
	if errors.Is(err, fs.ErrNotExist) && o.Kind == image.KindReference {
		err = fmt.Errorf("image %s: %w", shown(o), fs.ErrNotExist)
	}
	var d ocispec.Descriptor
	if err == nil {
		d, err = Find(ctx, l, o)
	}
	if errors.Is(err, fs.ErrNotExist) && o.Kind == image.KindReference && o.Name != "" {
		err = fault.Hint(err, "ctr-fetch %s", shown(o))
	}
	return l, d, err
}

// shown is how messages call an operand.
func shown(o image.Operand) string {
	if o.Kind == image.KindReference && o.Name != "" {
		return image.Familiar(o.Name)
	}
	return o.String()
}

// Find finds the image of an operand in a layout. A digest decides, whatever the name.
func Find(ctx context.Context, l *layout.Layout, o image.Operand) (ocispec.Descriptor, error) {
	if o.Digest != "" {
		return l.Resolve(ctx, string(o.Digest))
	}
	entries, err := l.Entries()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if o.Name == "" {
		d, err := resolve(entries, "")
		if err != nil {
			return d, fmt.Errorf("image layout %s: %w", l.Dir(), err)
		}
		return d, nil
	}
	d, err := l.Resolve(ctx, o.Name)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	if full, e := image.Normalize(o.Name); e == nil && full != o.Name {
		if d, err := l.Resolve(ctx, full); !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
	}
	return d, fmt.Errorf("image %s: not in image layout %s: %w", shown(o), l.Dir(), fs.ErrNotExist)
}

// In is a layout as a Source in which names are found as Find does.
func In(l *layout.Layout) Source { return finder{l} }

type finder struct{ *layout.Layout }

func (f finder) Resolve(ctx context.Context, name string) (ocispec.Descriptor, error) {
	o := image.Operand{Kind: image.KindLayout, Path: f.Dir(), Name: name}
	if d, err := image.ParseOperand(name); err == nil && d.Kind == image.KindReference {
		o.Digest = d.Digest
	}
	return Find(ctx, f.Layout, o)
}

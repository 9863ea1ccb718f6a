// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/registry"
)

// Layout makes a Target (and Source) of an image layout that is being written.
func Layout(w *layout.Writer) Target { return &layoutEnd{w.Layout(), w} }

type layoutEnd struct {
	*layout.Layout
	w *layout.Writer
}

func (t *layoutEnd) Push(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	body, err := open()
	if err != nil {
		return err
	}
	defer body.Close()
	return t.w.PutVerified(ctx, d, body)
}

func (t *layoutEnd) Tag(ctx context.Context, name string, d ocispec.Descriptor, data []byte) error {
	if err := t.w.PutBytes(ctx, d, data); err != nil {
		return err
	}
	return t.w.Tag(name, d)
}

// resumer is a Source that can start in the middle.
type resumer interface {
	FetchAt(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error)
}

// attempts that bring less than progressBytes each end a fetch.
const (
	attempts      = 5
	progressBytes = 64 << 10
)

// Pull gets a blob, resuming what an earlier run, or an earlier connection, has brought.
func (t *layoutEnd) Pull(ctx context.Context, src Source, d ocispec.Descriptor, wrap func(int64, io.Reader) io.Reader) error {
	rs, ok := src.(resumer)
	if !ok {
		body, err := src.Fetch(ctx, d)
		if err != nil {
			return side("source", err)
		}
		defer body.Close()
		r := wrap(0, body)
		defer closeReader(r)
		return t.w.PutVerified(ctx, d, r)
	}
	stale := true // what we resume may be wrong: one start from nothing is allowed
	for n := 1; ; {
		p, err := t.w.Partial(ctx, d)
		if p == nil {
			return side("target", err)
		}
		before := p.Offset()
		err = fill(ctx, rs, d, p, wrap)
		if err == nil {
			err = p.Commit()
			if errors.Is(err, layout.ErrDigestMismatch) && before > 0 && stale {
				stale = false
				continue
			}
			return side("source", err)
		}
		moved := p.Offset()-before >= progressBytes
		if errors.Is(err, layout.ErrDigestMismatch) {
			p.Restart() // the file is closed next; what it holds is of no use
		}
		p.Close()
		if moved {
			n = 1
		}
		if c := context.Cause(ctx); c != nil {
			return c
		}
		if n >= attempts || !registry.Passing(err) {
			return err
		}
		if e := registry.Sleep(ctx, registry.Pause(n)); e != nil {
			return e
		}
		n++
	}
}

// fill appends to p what is missing.
func fill(ctx context.Context, rs resumer, d ocispec.Descriptor, p *layout.Partial, wrap func(int64, io.Reader) io.Reader) error {
	if p.Offset() == d.Size {
		return nil
	}
	body, from, err := rs.FetchAt(ctx, d, p.Offset())
	if err != nil {
		return side("source", err)
	}
	defer body.Close()
	if from != p.Offset() {
		if err := p.Restart(); err != nil {
			return side("target", err)
		}
	}
	r := wrap(from, body)
	defer closeReader(r)
	n, err := io.Copy(p, r)
	if err == nil && from+n < d.Size {
		err = io.ErrUnexpectedEOF
	}
	var path *fs.PathError
	if errors.As(err, &path) { // the disk, not the network
		return side("target", err)
	}
	if err != nil {
		err = fmt.Errorf("blob %s: %d of %d bytes: %w", d.Digest, from+n, d.Size, err)
	}
	return side("source", err)
}

// closeReader ends a progress bar.
func closeReader(r io.Reader) {
	if c, ok := r.(io.Closer); ok {
		c.Close()
	}
}

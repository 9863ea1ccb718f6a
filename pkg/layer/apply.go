// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// Defaults of the limits in Options.
const (
	defaultMaxBytes   = 128 << 30
	defaultMaxEntries = 4 << 20
	defaultMaxRatio   = 2000
	defaultRatioFrom  = 1 << 30 // files of zeros compress that well, and become holes
	ratioFrom         = 64 << 20
)

// Apply unpacks the layer archive r, compressed or not, into dir, and reads r to its end, so that an error of
// a verifying reader counts. Where it fails, what dir then holds is undefined and to be removed by the caller.
// Two calls at a time must not work on one tree.
func Apply(ctx context.Context, r io.Reader, dir *rootfd.Root, o Options) (Result, error) {
	a := &applier{ctx: ctx, dir: dir, ratioFrom: ratioFrom}
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.MaxRatio <= 0 {
		o.MaxRatio, a.ratioFrom = defaultMaxRatio, defaultRatioFrom
	}
	if o.Form == nil {
		o.Form = Overlay{}
	}
	source := newAhead(r, nil)
	defer source.Close()
	a.o = o
	a.overlay, a.isOverlay = o.Form.(Overlay)
	err := a.stream(source)
	a.close()
	if err != nil && ctx.Err() == nil {
		// A blob that is not what its digest says is the better reason for an archive that makes no sense.
		if _, e := io.Copy(io.Discard, source); errors.Is(e, fault.ErrUnverified) {
			err = e
		}
	}
	return a.res, err
}

// stream reads the whole archive: inflating and hashing have goroutines of their own.
func (a *applier) stream(source io.Reader) error {
	in := &counter{r: source}
	plain, _, err := Decompress(in, a.o.MediaType)
	if err != nil {
		return err
	}
	defer plain.Close()
	inflated := newAhead(plain, func(b []byte) error { // same goroutine as in's reader
		a.inflated += int64(len(b))
		if a.inflated > a.o.MaxBytes {
			return fmt.Errorf("%w: archive of more than %d bytes", ErrLimit, a.o.MaxBytes)
		}
		if a.inflated > a.ratioFrom && a.inflated/max(in.n, 1) > a.o.MaxRatio {
			return fmt.Errorf("%w: %d bytes inflate to more than %d times as many", ErrLimit, in.n, a.o.MaxRatio)
		}
		return nil
	})
	defer inflated.Close()
	sum := digest.SHA256.Digester()
	hashed := newAhead(inflated, hashTap(sum.Hash()))
	total := &counter{r: hashed}
	err = a.archive(total)
	if err == nil {
		_, err = io.Copy(io.Discard, total) // what stands behind the archive's end belongs to the diffID
	}
	if err == nil {
		_, err = io.Copy(io.Discard, source)
	}
	hashed.abandon(inflated)
	a.res.Bytes = total.n
	if err != nil {
		return err
	}
	a.res.DiffID = sum.Digest()
	if a.o.DiffID != "" && a.res.DiffID != a.o.DiffID {
		return fault.As(fault.ErrUnverified, fmt.Errorf("uncompressed layer is %s, image config says %s", a.res.DiffID, a.o.DiffID))
	}
	return a.finish()
}

func (a *applier) start() error {
	fd, err := unix.Openat(a.dir.Fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: a.dir.Name(), Err: err}
	}
	a.root = &node{fd: fd}
	return a.remember(a.root)
}

func (a *applier) close() {
	if a.root != nil {
		a.release(a.root)
		unix.Close(a.root.fd)
	}
}

func hashTap(h hash.Hash) func([]byte) error {
	return func(b []byte) error { h.Write(b); return nil }
}

func (a *applier) archive(r io.Reader) error {
	err := a.start()
	if err != nil {
		return err
	}
	a.base = a.root
	if a.o.Dir != "" {
		if a.base, err = a.walk(a.root, a.o.Dir, true); err != nil {
			return err
		}
	}
	tr := tar.NewReader(r)
	for {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("layer archive: %w", err)
		}
		if a.res.Entries++; a.res.Entries > a.o.MaxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrLimit, a.o.MaxEntries)
		}
		if err := a.entry(h, tr); err != nil {
			return fmt.Errorf("layer entry %q: %w", short(h.Name), err)
		}
	}
}

// short keeps names from outside from flooding a message.
func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// An applier is one Apply at work.
type applier struct {
	ctx       context.Context
	o         Options
	overlay   Overlay
	isOverlay bool
	dir       *rootfd.Root
	root      *node
	base      *node   // where names start
	open      []*node // with a descriptor, least recently used first; without the root, which always has one
	buf       []byte
	inflated  int64
	ratioFrom int64 // uncompressed bytes
	claimed   int64 // sum of file sizes, holes counted
	parents   []*rootfd.Root
	asked     bool
	copies    []copied
	res       Result
}

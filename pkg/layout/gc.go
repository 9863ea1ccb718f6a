// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// GCOptions say what GC does; the zero value removes all that is not needed.
type GCOptions struct {
	DryRun      bool // only report
	KeepPartial bool // leave partial blobs, so that interrupted fetches can go on
	// Waiting, if not nil, is called once when somebody has been writing for a second.
	Waiting func()
}

// GCResult says what GC removed, or would have.
type GCResult struct {
	Blobs     []digest.Digest // sorted
	SizeBytes int64           // of blobs and partial blobs
	Partials  int             // partial blobs
	Temps     int             // temporary files of dead writers
}

// GC removes blobs that no entry of index.json reaches, partial blobs and temporary files. What refers to a
// kept document (its subject) is kept. It waits until nobody writes; writers wait until it is done. If a
// document that decides what is reachable is damaged, nothing is removed.
func (l *Layout) GC(ctx context.Context, o GCOptions) (*GCResult, error) {
	lock, err := l.exclusive(ctx, o.Waiting)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	res := &GCResult{}
	keep, err := l.reachable(ctx)
	if err != nil {
		if errors.Is(err, fault.ErrUnverified) {
			err = l.damaged(err)
		}
		return nil, fmt.Errorf("gc of image layout %s: nothing removed: %w", l.dir, err)
	}
	sizes, _, err := l.Blobs()
	if err != nil {
		return nil, err
	}
	for d, n := range sizes {
		if !keep[d] {
			res.Blobs = append(res.Blobs, d)
			res.SizeBytes += n
		}
	}
	slices.Sort(res.Blobs)
	var partials []string
	entries, err := os.ReadDir(filepath.Join(l.dir, partialDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			continue
		}
		if isTemp(e.Name()) {
			res.Temps++
		} else if !o.KeepPartial && st.Mode().IsRegular() {
			partials = append(partials, filepath.Join(l.dir, partialDir, e.Name()))
			res.Partials++
			res.SizeBytes += st.Size()
		}
	}
	if top, err := os.ReadDir(l.dir); err == nil {
		for _, e := range top {
			if isTemp(e.Name()) {
				res.Temps++
			}
		}
	}
	if o.DryRun {
		return res, nil
	}
	for _, p := range partials {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, d := range res.Blobs {
		if err := os.Remove(filepath.Join(l.dir, blobPath(d))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	res.Temps = 0
	for _, dir := range []string{l.dir, filepath.Join(l.dir, partialDir)} {
		n, err := atomicfile.Clean(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		res.Temps += n
	}
	return res, nil
}

// exclusive waits for the lock that keeps writers out.
func (l *Layout) exclusive(ctx context.Context, waiting func()) (*atomicfile.Lock, error) {
	since := time.Now()
	path := filepath.Join(l.dir, ocispec.ImageLayoutFile)
	for {
		lock, err := atomicfile.TryLockPath(path, true)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
		if waiting != nil && time.Since(since) > time.Second {
			waiting()
			waiting = nil
		}
	}
}

// Drop removes one document at once if nothing reaches it, instead of leaving it to GC. If somebody is writing,
// it stays.
func (l *Layout) Drop(ctx context.Context, d digest.Digest) error {
	if err := descriptor.CheckDigest(d); err != nil {
		return err
	}
	lock, err := atomicfile.TryLockPath(filepath.Join(l.dir, ocispec.ImageLayoutFile), true)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	keep, err := l.reachable(ctx)
	if err != nil || keep[d] {
		return err
	}
	return os.Remove(filepath.Join(l.dir, blobPath(d)))
}

// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
)

// GCOptions for GC.
type GCOptions struct {
	Keep   func(diffID, chainID digest.Digest) bool // layers of images that are still in a layout; nil: none
	DryRun bool
}

// A GCResult says what GC removed, or would.
type GCResult struct {
	Keys  []string
	Bytes int64 // of the layers' archives, uncompressed: about what the disk gets back
}

// GC removes layers that no bundle uses, and what dead processes left. It waits until no session is open.
func (s *Store) GC(ctx context.Context, o GCOptions) (*GCResult, error) {
	var lock *atomicfile.Lock
	for {
		var err error
		if lock, err = atomicfile.TryLockPath(s.path(lockFile), true); err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	defer lock.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	res := &GCResult{}
	for _, e := range entries {
		if ctx.Err() != nil {
			return res, context.Cause(ctx)
		}
		name := e.Name()
		switch {
		case name == lockFile || name == repairFile:
			continue
		case strings.HasPrefix(name, atomicfile.TempPrefix), strings.HasSuffix(name, lockSuffix):
			if !o.DryRun {
				if err := removeAll(s.path(name)); err != nil {
					return res, err
				}
			}
			continue
		case !e.IsDir() || name == "empty":
			continue
		}
		used, err := s.used(name, o.DryRun)
		if err != nil {
			return res, err
		}
		m, err := s.read(name)
		if err != nil {
			return res, err
		}
		if used || m != nil && o.Keep != nil && o.Keep(m.DiffID, m.ChainID) {
			continue
		}
		res.Keys = append(res.Keys, name)
		if m != nil {
			res.Bytes += m.Bytes
		}
		if o.DryRun {
			continue
		}
		tmp, err := os.MkdirTemp(s.dir, atomicfile.TempPrefix) // an entry is whole or not there
		if err != nil {
			return res, err
		}
		if err := os.Rename(s.path(name), filepath.Join(tmp, "entry")); err != nil {
			return res, err
		}
		if err := removeAll(tmp); err != nil {
			return res, err
		}
	}
	return res, nil
}

// used says whether a bundle still uses the entry and removes the marks of bundles that are gone.
func (s *Store) used(key string, look bool) (bool, error) {
	marks, err := os.ReadDir(s.path(key, usersDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	used := false
	for _, m := range marks {
		path := s.path(key, usersDir, m.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		dir := string(data)
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(s.dir, dir)
		}
		if bundleUses(dir, key) {
			used = true
		} else if !look {
			os.Remove(path)
		}
	}
	return used, nil
}

// bundleUses is careful: only a bundle that is gone, or whose overlay is made of other layers, does not.
func bundleUses(dir, key string) bool {
	b, err := bundle.Open(dir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	spec, err := b.Config()
	if err != nil {
		return true
	}
	var o bundle.Overlay
	if a := spec.Annotations[bundle.AnnotationOverlay]; a == "" || json.Unmarshal([]byte(a), &o) != nil {
		return true // mounted on the host
	}
	for _, m := range spec.Mounts { // a part of another image
		o.Lower = append(append(o.Lower, m.Source), m.Options...)
	}
	return slices.ContainsFunc(o.Lower, func(l string) bool { return strings.Contains(l, key) })
}

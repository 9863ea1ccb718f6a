// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/build/internal/cache"
	"github.com/ctr-tools/ctr/pkg/build/internal/exec"
)

// PruneOptions for Prune.
type PruneOptions struct {
	Root, Run string
	OlderThan time.Duration // only what was not used for so long; 0: everything
	Mounts    bool          // cache mounts too
	Runtime   string        // tests only
}

// A Pruned says what Prune removed.
type Pruned struct {
	Entries int // results of steps
	Mounts  int // cache mounts
	Kept    int // failed steps that were kept
}

// Prune removes results from the build cache, what killed builds left, and kept failed steps. Snapshots and
// blobs that were only in the cache are what ctr-fetch gc removes next.
func Prune(o PruneOptions) (p Pruned, err error) {
	if o.Root, o.Run, err = roots(o.Root, o.Run); err != nil {
		return p, err
	}
	if o.Runtime == "" {
		o.Runtime = "ctr-run"
	}
	dir, err := runtimeDir(o.Root, o.Run)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if err := sweep(o.Root, exec.Runtime{Name: o.Runtime, Dir: dir}); err != nil {
		return p, err
	}
	before := time.Now().Add(-o.OlderThan)
	if o.OlderThan == 0 {
		before = time.Now().Add(time.Hour) // clocks of file systems are coarse
	}
	if _, err := os.Stat(cacheDir(o.Root)); err == nil {
		k, err := cache.Open(cacheDir(o.Root))
		if err != nil {
			return p, err
		}
		if p.Entries, _, err = k.Prune(before); err != nil {
			return p, err
		}
	}
	if p.Kept, err = pruneDirs(failedDir(o.Root), keptMark, before); err != nil || !o.Mounts {
		return p, err
	}
	p.Mounts, err = pruneDirs(mountsDir(o.Root), "", before)
	return p, err
}

// pruneDirs removes directories that have a file mark, were not touched since before, and that nobody has locked.
func pruneDirs(parent, mark string, before time.Time) (n int, err error) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		if os.IsNotExist(err) {
			err = nil
		}
		return 0, err
	}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		if _, err := os.Lstat(filepath.Join(dir, mark)); err != nil {
			continue
		}
		st, err := os.Stat(dir)
		if err != nil || st.ModTime().After(before) {
			continue
		}
		l, err := atomicfile.TryLockPath(dir, true)
		if err != nil {
			continue
		}
		err = removeTree(dir)
		l.Unlock()
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/build/internal/exec"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// Names below place.Build(root).
func cacheDir(root string) string  { return filepath.Join(place.Build(root), "cache") }  // package cache
func mountsDir(root string) string { return filepath.Join(place.Build(root), "mounts") } // RUN --mount=type=cache
func tempDir(root string) string   { return filepath.Join(place.Build(root), "tmp") }    // sessions
func failedDir(root string) string { return filepath.Join(place.Build(root), "failed") } // --keep-failed

// roots are the two directories of a build, absolute: bundles hold them.
func roots(root, run string) (string, string, error) {
	if root == "" {
		root = place.Root()
	}
	if run == "" {
		run = place.Run()
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", "", err
	}
	run, err = filepath.Abs(run)
	return root, run, err
}

// runtimeDir is the runtime's directory for builds of this root, by whatever name it was called: builds of
// another root that share run are not ours to sweep.
func runtimeDir(root, run string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: root, Err: err}
	}
	return filepath.Join(run, "build", fmt.Sprintf("%x-%x", st.Dev, st.Ino)), nil
}

// keptMark is the file in the directory of a failed step that is kept: without it and a lock, a killed build
// left the directory.
const keptMark = "kept"

// A session is the private directory of one build. Whoever holds the lock on it is alive.
type session struct {
	dir  string
	lock *atomicfile.Lock
}

// newSession makes a directory (0700, random name) and locks it. Both happen under the lock that sweep takes
// too, so that no sweep meets a directory that is not locked yet.
func newSession(root string) (*session, error) {
	parent := tempDir(root)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	l, err := atomicfile.LockPath(parent, true)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	dir, err := os.MkdirTemp(parent, "build-")
	if err != nil {
		return nil, err
	}
	s := &session{dir: dir}
	if s.lock, err = atomicfile.TryLockPath(dir, true); err != nil {
		os.Remove(dir)
		return nil, err
	}
	return s, nil
}

func (s *session) path(name string) string { return filepath.Join(s.dir, name) }

func (s *session) close() {
	removeTree(s.dir)
	s.lock.Unlock()
}

func removeTree(dir string) error {
	r, err := rootfd.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer r.Close()
	return r.RemoveAll(filepath.Base(dir))
}

// sweep removes what builds that were killed left behind: containers, then directories.
func sweep(root string, rt exec.Runtime) error {
	parent := tempDir(root)
	l, err := atomicfile.LockPath(parent, true)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Unlock()
	// The containers come first: one that is listed has its scratch directory already.
	containers, err := rt.Containers()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	var dead []string
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		own, err := atomicfile.TryLockPath(dir, true)
		if err == nil {
			own.Unlock()
			dead = append(dead, dir)
			continue
		}
		ops, _ := filepath.Glob(filepath.Join(dir, "op-*"))
		for _, op := range ops {
			alive[exec.ContainerID(op)] = true
		}
	}
	kept, _ := filepath.Glob(filepath.Join(failedDir(root), "op-*"))
	for _, op := range kept {
		own, err := atomicfile.TryLockPath(op, true)
		if err != nil {
			alive[exec.ContainerID(op)] = true
			continue
		}
		if _, err := os.Lstat(filepath.Join(op, keptMark)); err != nil { // not whole, and its secrets are still in it
			dead = append(dead, op)
		}
		own.Unlock()
	}
	for _, id := range containers {
		if alive[id] {
			continue
		}
		if err := rt.Sweep(id); err != nil {
			return err
		}
	}
	for _, dir := range dead {
		ops, _ := filepath.Glob(filepath.Join(dir, "op-*"))
		for _, op := range append(ops, dir) {
			exec.Detach(context.Background(), exec.BundlePath(op)) // else ctr-net gc does
		}
		if err := removeTree(dir); err != nil {
			return err
		}
	}
	return nil
}

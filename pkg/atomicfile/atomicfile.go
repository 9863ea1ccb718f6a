// SPDX-License-Identifier: Apache-2.0

// Package atomicfile replaces files so that readers see the old or the new content and a crash leaves
// one of the two: temporary name in the same directory, fsync, rename, fsync of the directory.
//
// A temporary file's name starts with [TempPrefix], and its writer holds an exclusive flock(2) on it
// until the rename. So a temporary file that nobody has locked belongs to a dead writer, and [Clean]
// may remove it.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// TempPrefix starts the name of every temporary file.
const TempPrefix = ".tmp-"

// A File is a file being written. Exactly one of Commit and Abort takes effect, the first one.
type File struct {
	*os.File
	path string
	done bool
}

// Create opens a temporary file next to path. The directory has to exist.
func Create(path string, perm fs.FileMode) (*File, error) {
	dir, base := filepath.Split(path)
	for {
		r := fmt.Sprintf("%016x", rand.Uint64()) // guessed or not: O_EXCL
		name := dir + TempPrefix + base + "-" + r
		if len(base) > 200 { // NAME_MAX is 255
			name = dir + TempPrefix + r
		}
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			// Clean took it between open and lock: it is being removed.
			f.Close()
			os.Remove(name)
			continue
		}
		var st, at unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil || unix.Stat(name, &at) != nil || st.Ino != at.Ino {
			f.Close()
			continue
		}
		return &File{File: f, path: path}, nil
	}
}

// Commit makes the content durable and puts it in place.
func (f *File) Commit() error { return f.CommitAs(f.path) }

// CommitAs is Commit under another name in the same file system, for content whose name is known only
// at its end (a blob's digest).
func (f *File) CommitAs(path string) error {
	if f.done {
		return fs.ErrClosed
	}
	err := f.Sync()
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		f.Abort()
		return err
	}
	f.done = true
	if err := f.Close(); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Abort removes the temporary file. After Commit it does nothing, so that it can be deferred.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	os.Remove(f.Name())
	f.Close()
}

// Write replaces the content of path.
func Write(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// WriteFrom replaces the content of path with what r holds.
func WriteFrom(path string, r io.Reader, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Commit()
}

// SyncDir makes the entries of dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: the file system has no such call
		return err
	}
	return nil
}

// A Lock is a flock(2) held on a file or directory; the kernel drops it when its holder dies.
type Lock struct{ f *os.File }

// LockPath waits for a lock on path, which has to exist: exclusive, or shared with other sharers.
func LockPath(path string, exclusive bool) (*Lock, error) { return lock(path, exclusive, 0) }

// TryLockPath is LockPath that fails with unix.EWOULDBLOCK instead of waiting.
func TryLockPath(path string, exclusive bool) (*Lock, error) {
	return lock(path, exclusive, unix.LOCK_NB)
}

func lock(path string, exclusive bool, flags int) (*Lock, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	for {
		err = unix.Flock(int(f.Fd()), how|flags)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f}, nil
}

// Unlock releases the lock. A nil or released lock is left alone.
func (l *Lock) Unlock() {
	if l != nil && l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// Holds says whether what is at path now is what the lock is on.
func (l *Lock) Holds(path string) bool {
	mine, err := l.f.Stat()
	if err != nil {
		return false
	}
	st, err := os.Stat(path)
	return err == nil && os.SameFile(mine, st)
}

// Update replaces the content of path by what edit makes of it, with the directory of path locked from
// the read to the rename: of two updates at the same time, none is lost. edit gets nil where the file
// does not exist. Where edit fails, or returns the content unchanged, the file is not touched.
func Update(path string, perm fs.FileMode, edit func(old []byte) ([]byte, error)) error {
	l, err := LockPath(filepath.Dir(path), true)
	if err != nil {
		return err
	}
	defer l.Unlock()
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := edit(old)
	if err != nil {
		return err
	}
	if old != nil && string(data) == string(old) {
		return nil
	}
	return Write(path, data, perm)
}

// Clean removes temporary files in dir whose writers are gone and returns how many there were.
func Clean(dir string) (removed int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), TempPrefix) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		l, err := TryLockPath(path, true)
		if err != nil {
			continue // in use, or gone
		}
		if os.Remove(path) == nil {
			removed++
		}
		l.Unlock()
	}
	return removed, nil
}

// SPDX-License-Identifier: Apache-2.0

// Package snapshot keeps layers unpacked, each once for all images, bundles and processes, below
// place.Snapshots, and makes root filesystems of them.
//
//	t, err := store.Begin()                 // gc waits until Close
//	s, err := snapshot.Overlay{}.Stack(ctx, t, layers)
//	err = t.Use(s, bundleDir)               // from now on gc keeps the layers as long as the bundle
//	err = snapshot.Copy{}.Unpack(ctx, layers, rootfs)
//
// An entry is a directory named after the layer's diffID, or after the chainID where what was unpacked is right
// only above those parents (whiteouts, links into layers below, directories the layer does not name):
//
//	<key>/fs/        the tree, in the form's way
//	<key>/meta.json  [meta]
//	<key>/users/     one file for each bundle that uses it
//	<key>/synced     the tree has reached the disk
//
// It is made under a temporary name and renamed, under a lock on its chainID: a chain only waits for shorter
// ones, so that processes cannot wait in a circle. Instead of an fsync of each layer, an entry is trusted
// during the boot it was made in; in a later one only if it was marked as synced meanwhile. Entries are
// disposable: the layers are in the image layout.
package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/place"
)

// Names in the store and in an entry.
const (
	lockFile   = "lock"   // shared: sessions; exclusive: gc
	repairFile = "repair" // exclusive: whoever moves a broken entry away
	lockSuffix = ".lock"  // of a chain that is being made

	treeDir    = "fs"
	metaFile   = "meta.json"
	usersDir   = "users"
	syncedFile = "synced"
)

// A Store is a directory of unpacked layers.
type Store struct{ dir string }

// Open opens the store in dir and makes it where it is missing, for its owner only: the set-user-ID files
// of images must not be reachable for other users of the host.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := place.Private(abs); err != nil {
		return nil, err
	}
	for _, n := range []string{lockFile, repairFile} {
		f, err := os.OpenFile(filepath.Join(abs, n), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		f.Close()
	}
	return &Store{abs}, nil
}

// Dir is the store's absolute path.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// A Session keeps gc away: what it made or found stays until Close.
type Session struct {
	s    *Store
	lock *atomicfile.Lock
}

// Begin waits while gc works, and removes what dead processes left.
func (s *Store) Begin() (*Session, error) {
	l, err := atomicfile.LockPath(s.path(lockFile), false)
	if err != nil {
		return nil, err
	}
	if err := s.clean(); err != nil {
		l.Unlock()
		return nil, err
	}
	return &Session{s, l}, nil
}

// Close ends the session. A closed session is left alone.
func (t *Session) Close() { t.lock.Unlock() }

// meta describes an entry.
type meta struct {
	DiffID     digest.Digest `json:"diffID"`
	ChainID    digest.Digest `json:"chainID"`              // it was made above these parents
	Relies     bool          `json:"relies,omitempty"`     // and is right only there
	NamesRoot  bool          `json:"namesRoot,omitempty"`  // fs has the root directory's metadata
	OpaqueRoot bool          `json:"opaqueRoot,omitempty"` // the layers below do not show at all
	Bytes      int64         `json:"bytes"`
	Entries    int64         `json:"entries"`
	Boot       string        `json:"boot"` // kernel.random.boot_id
}

// key names an entry: the digest, and the form where it is not the usual one.
func key(d digest.Digest, form Overlay) string {
	k := d.Encoded()
	if d.Algorithm() != digest.SHA256 {
		k = d.Algorithm().String() + "-" + k
	}
	if form.UserXattr {
		k += "-user"
	}
	return k
}

// read returns an entry's meta, or nil if there is none or it cannot be trusted after a reboot.
func (s *Store) read(key string) (*meta, error) {
	data, err := os.ReadFile(s.path(key, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := new(meta)
	if json.Unmarshal(data, m) != nil {
		return nil, nil
	}
	if _, err := os.Lstat(s.path(key, syncedFile)); err != nil && m.Boot != bootID() {
		return nil, nil
	}
	return m, nil
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// discard moves a broken entry away and removes it.
func (s *Store) discard(key string) error {
	l, err := atomicfile.LockPath(s.path(repairFile), true)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if m, err := s.read(key); m != nil || err != nil {
		return err // somebody else has mended it
	}
	tmp, done, err := s.temp()
	if err != nil {
		return err
	}
	defer done()
	err = os.Rename(s.path(key), filepath.Join(tmp, "entry"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removeAll(tmp)
}

// temp makes a temporary directory, locked as long as it is in use, so that clean can tell it from what dead
// processes left. done removes what is left of it.
func (s *Store) temp() (path string, done func(), err error) {
	for {
		path, err := os.MkdirTemp(s.dir, atomicfile.TempPrefix)
		if err != nil {
			return "", nil, err
		}
		l, err := atomicfile.TryLockPath(path, true)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // clean took it between mkdir and flock
		}
		if err != nil {
			os.Remove(path)
			return "", nil, err
		}
		if _, err := os.Lstat(path); err != nil {
			l.Unlock()
			continue
		}
		return path, func() { removeAll(path); l.Unlock() }, nil
	}
}

// clean removes what dead processes left.
func (s *Store) clean() error {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), atomicfile.TempPrefix) {
			continue
		}
		l, err := atomicfile.TryLockPath(s.path(e.Name()), true)
		if err != nil {
			continue // in use, or gone
		}
		err = removeAll(s.path(e.Name()))
		l.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// put moves the finished directory tmp to its place. Somebody else's entry that is there already stands.
func (s *Store) put(tmp, key string, m *meta) error {
	m.Boot = bootID()
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, metaFile), data, 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(tmp, usersDir), 0o700); err != nil {
		return err
	}
	for range 2 {
		err = os.Rename(tmp, s.path(key))
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		if m, err := s.read(key); m != nil || err != nil {
			return err
		}
		if err := s.inherit(key, tmp); err != nil {
			return err
		}
		if err := s.discard(key); err != nil {
			return err
		}
	}
	return err
}

// inherit notes for the entry in tmp who uses the broken one that it replaces: bundles outlive reboots.
func (s *Store) inherit(key, tmp string) error {
	marks, err := os.ReadDir(s.path(key, usersDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, m := range marks {
		data, err := os.ReadFile(s.path(key, usersDir, m.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(tmp, usersDir, m.Name()), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lockChain waits for the right to make the layer at the top of a chain. The file is removed at the end, so a
// lock counts only if the file still has its name.
func (s *Store) lockChain(ctx context.Context, key string) (unlock func(), err error) {
	path := s.path(key + lockSuffix)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		for {
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EINTR && err != unix.EWOULDBLOCK {
				break
			}
			select {
			case <-ctx.Done():
				f.Close()
				return nil, context.Cause(ctx)
			case <-time.After(5 * time.Millisecond):
			}
		}
		var have, named unix.Stat_t
		if err == nil {
			err = unix.Fstat(int(f.Fd()), &have)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if unix.Stat(path, &named) == nil && named.Ino == have.Ino {
			return func() { os.Remove(path); f.Close() }, nil
		}
		f.Close()
	}
}

// Use notes in each layer of the stack that a bundle uses it.
func (t *Session) Use(st *Stack, bundleDir string) error {
	abs, err := filepath.Abs(bundleDir)
	if err != nil {
		return err
	}
	name := userName(abs)
	if rel, err := filepath.Rel(t.s.dir, abs); err == nil && filepath.IsLocal(filepath.Join(filepath.Base(t.s.dir), rel)) {
		abs = rel // below the same root: stays right when the root is moved
	}
	for _, k := range st.keys {
		if err := os.WriteFile(t.s.path(k, usersDir, name), []byte(abs), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func userName(abs string) string {
	sum := sha256.Sum256([]byte(abs))
	return hex.EncodeToString(sum[:16])
}

// removeAll is os.RemoveAll that also opens directories which are closed to their owner (rootless).
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

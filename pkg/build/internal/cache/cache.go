// SPDX-License-Identifier: Apache-2.0

// Package cache remembers what operations made. An entry is one small file under a key; the key is a digest of
// everything that the result depends on, so an entry is never wrong, only useless. Entries are replaced
// atomically and need no lock: of two builds that do the same work at once, the second to finish replaces an
// entry by an equal one. What entries name, snapshots and blobs, is checked by whoever uses them; removing any
// of it costs time only.
package cache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
)

// version is part of every key: another meaning of keys or results, another version.
const version = "ctr-build 1"

// A Cache is a directory of entries.
type Cache struct{ dir string }

// An Entry is the result of an operation.
type Entry struct {
	Key    digest.Digest       `json:"key"`
	Text   string              `json:"text"`             // the instruction, for people
	Inputs []string            `json:"inputs"`           // what the key was made of
	DiffID digest.Digest       `json:"diffID,omitempty"` // of the layer; empty: the operation changed nothing
	Layer  *ocispec.Descriptor `json:"layer,omitempty"`  // the compressed layer, if one was made
}

// Open opens the cache in dir, which is made if it is missing.
func Open(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Cache{dir}, nil
}

// Key makes a key of all inputs of an operation.
func Key(inputs ...string) digest.Digest {
	data, err := json.Marshal(append([]string{version}, inputs...)) // quoted: no two lists spell the same
	if err != nil {
		panic("strings have a JSON form: " + err.Error())
	}
	return digest.FromBytes(data)
}

func (c *Cache) path(key digest.Digest) string {
	return filepath.Join(c.dir, key.Encoded()+".json")
}

// Get returns the entry for key; ok is false if there is none. An entry that cannot be read is none.
func (c *Cache) Get(key digest.Digest) (e Entry, ok bool) {
	data, err := os.ReadFile(c.path(key))
	if err != nil || json.Unmarshal(data, &e) != nil || e.Key != key {
		return Entry{}, false
	}
	if e.DiffID != "" && e.DiffID.Validate() != nil {
		return Entry{}, false
	}
	now := time.Now()
	os.Chtimes(c.path(key), now, now) // Prune removes what was not used; a lost update is harmless
	return e, true
}

// Put stores an entry under its key.
func (c *Cache) Put(e Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return atomicfile.Write(c.path(e.Key), append(data, '\n'), 0o600)
}

// Prune removes entries that were not used since before, and temporary files of writers that died. It
// returns the removed entries' count and the DiffIDs that entries still name.
func (c *Cache) Prune(before time.Time) (removed int, kept map[digest.Digest]bool, err error) {
	if _, err := atomicfile.Clean(c.dir); err != nil {
		return 0, nil, err
	}
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return 0, nil, err
	}
	kept = map[digest.Digest]bool{}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, kept, err
		}
		if !info.ModTime().Before(before) {
			if data, err := os.ReadFile(filepath.Join(c.dir, f.Name())); err == nil {
				var e Entry
				if json.Unmarshal(data, &e) == nil && e.Key == digest.NewDigestFromEncoded(digest.SHA256, name) {
					kept[e.DiffID] = true
				}
			}
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, kept, err
		}
		removed++
	}
	return removed, kept, nil
}

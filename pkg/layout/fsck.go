// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/descriptor"
)

// FsckOptions say what Fsck does; the zero value only looks.
type FsckOptions struct {
	// Repair removes blobs whose content is not their digest's, so that the next fetch gets them again.
	Repair bool
}

// A FsckResult is what Fsck saw.
type FsckResult struct {
	Entries   int
	Blobs     int
	SizeBytes int64
	Problems  []Problem       // sorted; none: the layout is good
	Temps     []string        // unfinished files, which do no harm and which GC removes
	Removed   []digest.Digest // by Repair
}

// A Problem is one thing that is wrong.
type Problem struct {
	Kind   string        `json:"kind"` // one of the words of spec/layout.md, Fsck
	Name   string        `json:"name,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	Text   string        `json:"text"`
}

// Fsck checks index.json, every document and blob that it reaches, and the content of every other blob.
// The error is about not being able to look; what is wrong is in the result.
func (l *Layout) Fsck(ctx context.Context, o FsckOptions) (*FsckResult, error) {
	var lock *atomicfile.Lock
	var err error
	if o.Repair {
		lock, err = l.exclusive(ctx, nil)
	} else { // GC must not remove under our eyes
		lock, err = atomicfile.LockPath(filepath.Join(l.dir, ocispec.ImageLayoutFile), false)
	}
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	c := &checker{l: l, ctx: ctx, res: &FsckResult{}, seen: map[digest.Digest]ocispec.Descriptor{}, bad: map[digest.Digest]bool{}}
	entries, err := l.Entries()
	if err != nil {
		c.problem("index", "", "", "%v", err)
	}
	sizes, strays, err := l.Blobs()
	if err != nil {
		c.problem("blobs", "", "", "%v", err)
	}
	for _, s := range strays {
		c.problem("stray", "", "", "%s: no blob: want a regular file named by its digest", s)
	}
	if err := c.content(sizes); err != nil {
		return nil, err
	}
	names := map[string]digest.Digest{}
	for i, d := range entries {
		name := d.Annotations[ocispec.AnnotationRefName]
		if err := descriptor.Check(d); err != nil {
			c.problem("digest", name, "", "entry %d: %v", i, err)
			continue
		}
		if first, ok := names[name]; ok && name != "" && first != d.Digest {
			c.problem("name", name, d.Digest, "the name stands for %s too", first)
		}
		names[name] = d.Digest
		mark, sparse := d.Annotations[AnnotationPlatforms]
		if err := c.descriptor(name, d, mark, sparse, 0); err != nil {
			return nil, err
		}
	}
	c.temps()
	c.res.Entries = len(entries)
	if o.Repair {
		for d := range c.bad {
			if err := os.Remove(filepath.Join(l.dir, blobPath(d))); err != nil {
				return nil, err
			}
			c.res.Removed = append(c.res.Removed, d)
		}
		slices.Sort(c.res.Removed)
	}
	slices.SortStableFunc(c.res.Problems, func(a, b Problem) int {
		return strings.Compare(a.Kind+a.Name+string(a.Digest), b.Kind+b.Name+string(b.Digest))
	})
	return c.res, nil
}

type checker struct {
	l    *Layout
	ctx  context.Context
	res  *FsckResult
	seen map[digest.Digest]ocispec.Descriptor
	bad  map[digest.Digest]bool
	mu   sync.Mutex
}

func (c *checker) problem(kind, name string, d digest.Digest, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.res.Problems = append(c.res.Problems, Problem{kind, name, d, fmt.Sprintf(format, args...)})
}

// content hashes all blobs.
func (c *checker) content(sizes map[digest.Digest]int64) error {
	g, ctx := errgroup.WithContext(c.ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for d, n := range sizes {
		c.res.Blobs++
		c.res.SizeBytes += n
		g.Go(func() error {
			r, err := c.l.Fetch(ctx, ocispec.Descriptor{Digest: d, Size: n})
			if err == nil {
				defer r.Close()
				_, err = io.Copy(io.Discard, r)
			}
			if errors.Is(err, ErrDigestMismatch) {
				c.problem("content", "", d, "content has another digest")
				c.mu.Lock()
				c.bad[d] = true
				c.mu.Unlock()
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

// descriptor checks what an entry reaches. mark lists the platforms that a sparse index has.
func (c *checker) descriptor(name string, d ocispec.Descriptor, mark string, sparse bool, depth int) error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	document := descriptor.IsIndex(d.MediaType) || descriptor.IsManifest(d.MediaType)
	if first, ok := c.seen[d.Digest]; ok {
		if first.MediaType != d.MediaType && (document || descriptor.IsIndex(first.MediaType) || descriptor.IsManifest(first.MediaType)) {
			c.problem("media-type", name, d.Digest, "is %s here and %s elsewhere", d.MediaType, first.MediaType)
		}
		if first.Size != d.Size {
			c.problem("size", name, d.Digest, "%d bytes here and %d elsewhere", d.Size, first.Size)
		}
		return nil
	}
	size, err := c.l.Size(d.Digest)
	if err != nil {
		platform := ""
		if d.Platform != nil {
			platform = descriptor.FormatPlatform(*d.Platform)
		}
		if sparse && depth > 0 && document && !slices.Contains(strings.Split(mark, ","), platform) {
			return nil
		}
		if depth > 0 && !document && foreign(d) {
			return nil
		}
		c.problem("missing", name, d.Digest, "%s is not in the layout", d.MediaType)
		return nil
	}
	c.seen[d.Digest] = d
	if size != d.Size {
		c.problem("size", name, d.Digest, "%d bytes, its descriptor says %d", size, d.Size)
		return nil
	}
	if !document || c.bad[d.Digest] {
		return nil
	}
	if depth == maxDepth {
		c.problem("depth", name, d.Digest, "more than %d documents in one another", maxDepth)
		return nil
	}
	doc, err := c.l.Document(c.ctx, d)
	if err != nil {
		if context.Cause(c.ctx) != nil {
			return err
		}
		c.problem("document", name, d.Digest, "%v", err)
		return nil
	}
	here := map[string]bool{} // platforms of which a sparse index has a manifest
	if sparse && doc.Index != nil {
		for _, m := range doc.Index.Manifests {
			if m.Platform != nil && c.l.Has(m.Digest) {
				here[descriptor.FormatPlatform(*m.Platform)] = true
			}
		}
	}
	for _, child := range doc.Children() {
		if p := child.Platform; p != nil && here[descriptor.FormatPlatform(*p)] && !c.l.Has(child.Digest) {
			continue
		}
		if err := c.descriptor(name, child, mark, sparse && doc.Index != nil, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// foreign layers may live elsewhere only.
func foreign(d ocispec.Descriptor) bool {
	return strings.Contains(d.MediaType, "nondistributable") || strings.Contains(d.MediaType, ".foreign.")
}

// temps lists unfinished files.
func (c *checker) temps() {
	for _, dir := range []string{".", partialDir} {
		entries, err := os.ReadDir(filepath.Join(c.l.dir, dir))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if dir == partialDir || isTemp(e.Name()) {
				c.res.Temps = append(c.res.Temps, filepath.Join(dir, e.Name()))
			}
		}
	}
}

func isTemp(name string) bool { return strings.HasPrefix(name, atomicfile.TempPrefix) }

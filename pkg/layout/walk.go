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
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
)

// maxDepth bounds documents in documents. A cycle cannot be made with real digests.
const maxDepth = 16

// Walk calls visit for d and everything that it consists of, each digest once, parents first. have is false
// where the blob is not in the layout, as in a sparse index. A document that cannot be read ends the walk.
func (l *Layout) Walk(ctx context.Context, d ocispec.Descriptor, visit func(d ocispec.Descriptor, have bool) error) error {
	return l.walk(ctx, d, map[digest.Digest]bool{}, 0, visit)
}

func (l *Layout) walk(ctx context.Context, d ocispec.Descriptor, seen map[digest.Digest]bool, depth int, visit func(ocispec.Descriptor, bool) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := descriptor.Check(d); err != nil {
		return err
	}
	if seen[d.Digest] {
		return nil
	}
	seen[d.Digest] = true
	have := l.Has(d.Digest)
	if err := visit(d, have); err != nil {
		return err
	}
	if !have || !descriptor.IsIndex(d.MediaType) && !descriptor.IsManifest(d.MediaType) {
		return nil
	}
	if depth == maxDepth {
		return descriptor.Mismatch("document %s: more than %d documents in one another", d.Digest, maxDepth)
	}
	doc, err := l.Document(ctx, d)
	if err != nil {
		return err
	}
	for _, c := range doc.Children() {
		if err := l.walk(ctx, c, seen, depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// Blobs lists the blobs in the layout and their sizes, reachable or not, and the files among them whose name
// is no digest.
func (l *Layout) Blobs() (sizes map[digest.Digest]int64, strays []string, err error) {
	sizes = map[digest.Digest]int64{}
	top := filepath.Join(l.dir, "blobs")
	algorithms, err := os.ReadDir(top)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range algorithms {
		if !a.IsDir() {
			strays = append(strays, filepath.Join("blobs", a.Name()))
			continue
		}
		files, err := os.ReadDir(filepath.Join(top, a.Name()))
		if err != nil {
			return nil, nil, err
		}
		for _, f := range files {
			d := digest.Digest(a.Name() + ":" + f.Name())
			info, err := f.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			if d.Validate() != nil || !info.Mode().IsRegular() {
				strays = append(strays, filepath.Join("blobs", a.Name(), f.Name()))
				continue
			}
			sizes[d] = info.Size()
		}
	}
	return sizes, strays, nil
}

// Referrers lists the manifests and indexes in the layout whose subject is d, in the order of their digests:
// the descriptors have the document's artifact type and annotations, as in the referrers API.
func (l *Layout) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	if err := descriptor.CheckDigest(d); err != nil {
		return nil, err
	}
	all, err := l.subjects(ctx)
	return all[d], err
}

// subjects reads every blob that may be a document and sorts those with a subject by it.
func (l *Layout) subjects(ctx context.Context) (map[digest.Digest][]ocispec.Descriptor, error) {
	sizes, _, err := l.Blobs()
	if err != nil {
		return nil, err
	}
	found := map[digest.Digest][]ocispec.Descriptor{}
	for dg, size := range sizes {
		if size > descriptor.MaxDocumentBytes || size < 2 {
			continue
		}
		data, err := l.ReadAll(ctx, ocispec.Descriptor{Digest: dg, Size: size})
		if err != nil {
			if context.Cause(ctx) != nil {
				return nil, context.Cause(ctx)
			}
			continue // damaged or gone: fsck's business
		}
		if data[0] != '{' || !strings.Contains(string(data), `"subject"`) {
			continue
		}
		doc, err := descriptor.Parse("", data)
		if err != nil || doc.Subject() == nil {
			continue
		}
		r := ocispec.Descriptor{MediaType: doc.MediaType, Digest: dg, Size: size}
		if doc.Manifest != nil {
			r.ArtifactType, r.Annotations = doc.Manifest.ArtifactType, doc.Manifest.Annotations
			if r.ArtifactType == "" {
				r.ArtifactType = doc.Manifest.Config.MediaType
			}
		} else {
			r.ArtifactType, r.Annotations = doc.Index.ArtifactType, doc.Index.Annotations
		}
		s := doc.Subject().Digest
		found[s] = append(found[s], r)
	}
	for _, rs := range found {
		slices.SortFunc(rs, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	}
	return found, nil
}

// reachable is what GC keeps: what the entries of index.json consist of, and what refers to any of it.
func (l *Layout) reachable(ctx context.Context) (map[digest.Digest]bool, error) {
	entries, err := l.Entries()
	if err != nil {
		return nil, err
	}
	keep := map[digest.Digest]bool{}
	var fresh []digest.Digest
	add := func(d ocispec.Descriptor) error {
		return l.walk(ctx, d, keep, 0, func(d ocispec.Descriptor, _ bool) error {
			fresh = append(fresh, d.Digest)
			return nil
		})
	}
	for _, d := range entries {
		if err := add(d); err != nil {
			return nil, fmt.Errorf("image %s: %w", nameOf(d), err)
		}
	}
	subjects, err := l.subjects(ctx)
	if err != nil {
		return nil, err
	}
	for len(fresh) > 0 {
		d := fresh[0]
		fresh = fresh[1:]
		for _, r := range subjects[d] {
			if err := add(r); err != nil {
				return nil, fmt.Errorf("referrer %s of %s: %w", r.Digest, d, err)
			}
		}
	}
	return keep, nil
}

// nameOf is what messages call an entry.
func nameOf(d ocispec.Descriptor) string {
	if n := d.Annotations[ocispec.AnnotationRefName]; n != "" {
		return n
	}
	return string(d.Digest)
}

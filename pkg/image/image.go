// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// A Store yields content by descriptor. Fetch returns fs.ErrNotExist if it has none.
type Store interface {
	Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error)
}

// An Image is one platform's image: its manifest and config, read and checked.
type Image struct {
	Descriptor ocispec.Descriptor // of the manifest
	Index      digest.Digest      // the outermost index it was found through, or ""
	Manifest   ocispec.Manifest
	Config     Config
	RawConfig  []byte // the config as it is stored
}

// Platform is the one of the config.
func (i *Image) Platform() ocispec.Platform { return i.Config.Platform }

// maxIndexDepth bounds indexes in indexes.
const maxIndexDepth = 4

// Load reads the image d, which is a manifest or an index; of an index it takes the image for the platform p
// (nil: this machine's). A manifest whose config names another platform than a p that is given is refused with
// fs.ErrNotExist, as is an index without p.
func Load(ctx context.Context, s Store, d ocispec.Descriptor, p *ocispec.Platform) (*Image, error) {
	want := DefaultPlatform()
	if p != nil {
		want = normal(*p)
	}
	img := &Image{}
	for depth := 0; ; depth++ {
		doc, err := Document(ctx, s, d)
		if err != nil {
			return nil, absent(err, d, want)
		}
		if doc.Manifest != nil {
			img.Descriptor, img.Manifest = d, *doc.Manifest
			break
		}
		if depth == maxIndexDepth {
			return nil, descriptor.Mismatch("index %s: more than %d indexes in one another", d.Digest, maxIndexDepth)
		}
		if img.Index == "" {
			img.Index = d.Digest
		}
		m, ok := Choose(doc.Index.Manifests, want)
		if !ok {
			have := "no images"
			if ps := Platforms(doc.Index.Manifests); len(ps) > 0 {
				have = strings.Join(ps, ", ")
			}
			return nil, fmt.Errorf("image %s: no manifest for platform %s: it has %s: %w", d.Digest, FormatPlatform(want), have, fs.ErrNotExist)
		}
		d = m
	}
	if t := img.Manifest.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != descriptor.DockerConfig {
		return nil, fmt.Errorf("manifest %s: config of media type %q: an artifact, not an image", d.Digest, t)
	}
	raw, err := read(ctx, s, img.Manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	if err := json.Unmarshal(raw, &img.Config); err != nil {
		return nil, descriptor.Mismatch("image config %s: %v", img.Manifest.Config.Digest, err)
	}
	img.RawConfig = raw
	if err := img.check(); err != nil {
		return nil, err
	}
	have := img.Config.Platform
	if p != nil && have.Architecture != "" && rank(want, have) == 0 {
		return nil, fmt.Errorf("image %s: platform %s, want %s: %w", d.Digest, FormatPlatform(have), FormatPlatform(want), fs.ErrNotExist)
	}
	return img, nil
}

// absent tells the one who asked for a platform that a sparse index lacks how to get it.
func absent(err error, d ocispec.Descriptor, want ocispec.Platform) error {
	if errors.Is(err, fs.ErrNotExist) && d.Platform != nil {
		return fault.Hint(fmt.Errorf("image for platform %s: %w", FormatPlatform(want), err),
			"ctr-fetch --platform %s REFERENCE fetches it too", FormatPlatform(want))
	}
	return err
}

// check refuses what would break those who use the image.
func (i *Image) check() error {
	layers, diffs := i.Manifest.Layers, i.Config.RootFS.DiffIDs
	if len(layers) != len(diffs) {
		return descriptor.Mismatch("image %s: %d layers in the manifest, %d diff_ids in the config", i.Descriptor.Digest, len(layers), len(diffs))
	}
	for _, d := range diffs {
		if err := descriptor.CheckDigest(d); err != nil {
			return fmt.Errorf("image %s: diff_id: %w", i.Descriptor.Digest, err)
		}
	}
	return nil
}

// Document reads and checks an index or manifest of at most 4 MiB.
func Document(ctx context.Context, s Store, d ocispec.Descriptor) (*descriptor.Document, error) {
	data, err := read(ctx, s, d)
	if err != nil {
		return nil, err
	}
	doc, err := descriptor.Parse(d.MediaType, data)
	if err != nil {
		return nil, fmt.Errorf("document %s: %w", d.Digest, err)
	}
	return doc, nil
}

// read reads a document whole; whatever the store checks, size and digest are checked here too.
func read(ctx context.Context, s Store, d ocispec.Descriptor) ([]byte, error) {
	if err := descriptor.Check(d); err != nil {
		return nil, err
	}
	if d.Size > descriptor.MaxDocumentBytes {
		return nil, descriptor.Mismatch("document %s: %d bytes, want at most %d", d.Digest, d.Size, descriptor.MaxDocumentBytes)
	}
	r, err := s.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := descriptor.ReadAll(d, r)
	if err != nil {
		return nil, fmt.Errorf("document %s: %w", d.Digest, err)
	}
	return data, nil
}

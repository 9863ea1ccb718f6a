// SPDX-License-Identifier: Apache-2.0

// Package export makes the documents of an image, config and manifest, of what a build resulted in, as Docker
// makes them: history with an entry for each instruction, rootfs with the layers' diffIDs. The same build gives
// the same bytes: all times are the epoch, and neither host nor user nor clock is in them.
package export

import (
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/image"
)

// comment marks the history entries that are ours.
const comment = "ctr-build"

// A Layer is a layer of the image, lowest first in lists.
type Layer struct {
	DiffID digest.Digest
	Blob   ocispec.Descriptor
}

// Config is the image's config. changed says whether an operation made a layer.
func Config(g *graph.Graph, layers []Layer, changed func(*graph.Op) bool, epoch time.Time) image.Config {
	c := g.Config
	epoch = epoch.UTC()
	c.Created = &epoch
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.DiffID)
	}
	c.History = []ocispec.History{}
	own, base := 0, 0
	var ours []ocispec.History
	for _, h := range g.History {
		switch {
		case h.Base:
			if !h.EmptyLayer {
				base++
			}
			c.History = append(c.History, h.History)
			continue
		case h.Op != nil && changed(h.Op):
			own++
		default:
			h.EmptyLayer = true
		}
		h.Created, h.Comment = &epoch, comment
		ours = append(ours, h.History)
	}
	// Tools pair layers with entries that are not empty: a base without history gets one for each of its layers.
	for ; base+own < len(layers); base++ {
		c.History = append(c.History, ocispec.History{Comment: "layer of the base image"})
	}
	c.History = append(c.History, ours...)
	return c
}

// Manifest is the image's manifest. config describes the stored config.
func Manifest(config ocispec.Descriptor, layers []Layer) ocispec.Manifest {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediaType(l.Blob.MediaType), Digest: l.Blob.Digest, Size: l.Blob.Size, URLs: l.Blob.URLs})
	}
	return m
}

// mediaType is the OCI type for Docker's: manifests do not mix them.
func mediaType(t string) string {
	if !strings.HasPrefix(t, "application/vnd.docker.image.rootfs.") {
		return t
	}
	switch {
	case strings.HasSuffix(t, ".tar.gzip"):
		return ocispec.MediaTypeImageLayerGzip
	case strings.HasSuffix(t, ".tar.zstd"):
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayer
}

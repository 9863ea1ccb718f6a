// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/snapshot"
)

// gcSnapshots removes unpacked layers that neither a bundle nor an image of the default layout has.
func gcSnapshots(ctx context.Context, root string, l *layout.Layout, dryRun bool) (*snapshot.GCResult, error) {
	if _, err := os.Stat(place.Snapshots(root)); errors.Is(err, fs.ErrNotExist) {
		return &snapshot.GCResult{}, nil
	}
	keep := map[digest.Digest]bool{}
	entries, err := l.Entries()
	if err != nil {
		return nil, err
	}
	for _, d := range entries {
		if err := keepLayers(ctx, l, d, keep, 0); err != nil {
			return nil, err
		}
	}
	s, err := snapshot.Open(place.Snapshots(root))
	if err != nil {
		return nil, err
	}
	return s.GC(ctx, snapshot.GCOptions{DryRun: dryRun, Keep: func(diffID, chainID digest.Digest) bool { return keep[diffID] || keep[chainID] }})
}

// keepLayers notes the diffIDs and chainIDs of an image, or of all images of an index that are there.
func keepLayers(ctx context.Context, l *layout.Layout, d ocispec.Descriptor, keep map[digest.Digest]bool, depth int) error {
	doc, err := image.Document(ctx, l, d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // of a platform that was not fetched
	}
	if err != nil {
		return err
	}
	if doc.Index != nil {
		for _, m := range doc.Index.Manifests {
			if depth > 4 {
				break
			}
			if err := keepLayers(ctx, l, m, keep, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if t := doc.Manifest.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != descriptor.DockerConfig {
		return nil // an artifact
	}
	img, err := image.Load(ctx, l, d, nil)
	if err != nil {
		return gone(err)
	}
	for i, id := range img.Config.RootFS.DiffIDs {
		keep[id] = true
		keep[snapshot.ChainID(img.Config.RootFS.DiffIDs[:i+1]...)] = true
	}
	return nil
}

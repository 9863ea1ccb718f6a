// SPDX-License-Identifier: Apache-2.0

// Package layouttest makes images for the tests of other packages.
package layouttest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/layout"
)

// Busybox is the content of a static busybox. Without one the test is skipped.
func Busybox(t testing.TB) []byte {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("SKIP: needs busybox-static")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A File is a regular file of a layer.
type File struct {
	Name string
	Data []byte
	Mode int64
}

// Layer is a gzip-compressed layer with the files, and its diffID.
func Layer(t testing.TB, files ...File) ([]byte, digest.Digest) {
	t.Helper()
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: int64(len(f.Data)), Mode: f.Mode}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return zipped.Bytes(), digest.FromBytes(raw.Bytes())
}

// Image puts an image with one layer into a layout, and returns its manifest.
func Image(t testing.TB, w *layout.Writer, p ocispec.Platform, files ...File) ocispec.Descriptor {
	t.Helper()
	ctx := context.Background()
	data, diff := Layer(t, files...)
	layer, err := w.Put(ctx, ocispec.MediaTypeImageLayerGzip, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	config, err := w.PutJSON(ctx, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: p,
		Config: ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.PutJSON(ctx, ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Index puts an index with an image for each platform into a layout; the images differ in etc/platform.
func Index(t testing.TB, w *layout.Writer, files []File, platforms ...ocispec.Platform) ocispec.Descriptor {
	t.Helper()
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, p := range platforms {
		m := Image(t, w, p, append(files, File{"etc/platform", []byte(p.OS + "/" + p.Architecture + p.Variant + "\n"), 0o644})...)
		m.Platform = &p
		x.Manifests = append(x.Manifests, m)
	}
	d, err := w.PutJSON(context.Background(), ocispec.MediaTypeImageIndex, x)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Platforms are three, one of them this machine's on amd64.
func Platforms() []ocispec.Platform {
	return []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "arm", Variant: "v7"}}
}

// Good fails the test unless fsck finds nothing wrong.
func Good(t testing.TB, l *layout.Layout) *layout.FsckResult {
	t.Helper()
	res, err := l.Fsck(context.Background(), layout.FsckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range res.Problems {
		t.Errorf("fsck: %s %s %s: %s", p.Kind, p.Name, p.Digest, p.Text)
	}
	return res
}

// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/image"
)

// An ArchiveWriter is a Target that is a tar file: an image layout, and with Docker set the manifest.json too
// that "docker load" of any age and "podman load" want. The same image makes the same bytes.
type ArchiveWriter struct {
	docker  bool
	mu      sync.Mutex
	t       *tar.Writer
	have    map[digest.Digest]bool
	entries []ocispec.Descriptor
	docs    []dockerImage
}

type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// NewArchiveWriter starts an archive on w. Close ends it.
func NewArchiveWriter(w io.Writer, docker bool) (*ArchiveWriter, error) {
	a := &ArchiveWriter{docker: docker, t: tar.NewWriter(w), have: map[digest.Digest]bool{}}
	data, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	return a, a.member(ocispec.ImageLayoutFile, int64(len(data)), bytes.NewReader(data))
}

func (a *ArchiveWriter) member(name string, size int64, r io.Reader) error {
	if err := a.t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(a.t, r)
	return err
}

// Exists says what has been written already.
func (a *ArchiveWriter) Exists(_ context.Context, d ocispec.Descriptor) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.have[d.Digest], nil
}

func blobMember(d digest.Digest) string {
	return path.Join("blobs", d.Algorithm().String(), d.Encoded())
}

// Push writes content. After an error the archive is of no use.
func (a *ArchiveWriter) Push(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if err := descriptor.Check(d); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have[d.Digest] {
		return nil
	}
	body, err := open()
	if err != nil {
		return err
	}
	defer body.Close()
	if err := a.member(blobMember(d.Digest), d.Size, ctxReader{ctx, descriptor.Verify(d, body)}); err != nil {
		return err
	}
	a.have[d.Digest] = true
	return nil
}

// Tag adds d to the index under a name, which may be empty.
func (a *ArchiveWriter) Tag(ctx context.Context, name string, d ocispec.Descriptor, data []byte) error {
	if err := a.Push(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }); err != nil {
		return err
	}
	e := d
	e.Annotations = map[string]string{}
	for k, v := range d.Annotations {
		e.Annotations[k] = v
	}
	full, err := image.Normalize(name)
	if name != "" {
		e.Annotations[ocispec.AnnotationRefName] = name
		if err == nil {
			e.Annotations[annotationContainerdName] = full
		}
	}
	a.entries = append(a.entries, e)
	if !a.docker {
		return nil
	}
	doc, err := descriptor.Parse(d.MediaType, data)
	if err != nil {
		return err
	}
	if doc.Manifest == nil {
		return descriptor.Mismatch("docker-archive: %s is an index, want one platform's manifest", d.Digest)
	}
	i := dockerImage{Config: blobMember(doc.Manifest.Config.Digest), Layers: []string{}}
	if r, err := image.ParseReference(name); err == nil && name != "" && r.Tag != "" {
		r.Digest = ""
		i.RepoTags = []string{r.Familiar()}
	}
	for _, l := range doc.Manifest.Layers {
		i.Layers = append(i.Layers, blobMember(l.Digest))
	}
	a.docs = append(a.docs, i)
	return nil
}

// Close writes the index and ends the archive.
func (a *ArchiveWriter) Close() error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: a.entries}
	last := []struct {
		name string
		v    any
	}{{ocispec.ImageIndexFile, index}}
	if a.docker {
		last = append(last, struct {
			name string
			v    any
		}{"manifest.json", a.docs})
	}
	for _, f := range last {
		data, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := a.member(f.name, int64(len(data)), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return a.t.Close()
}

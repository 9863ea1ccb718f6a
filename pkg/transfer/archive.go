// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
)

// annotationContainerdName is where Docker and containerd put the full reference in an archive's index.
const annotationContainerdName = "io.containerd.image.name"

// An Archive is a tar file with images, of podman, skopeo ("oci-archive", "docker-archive") or "docker save",
// old or new. It is a Source. Nothing of it is unpacked: content is read where it stands in the file.
type Archive struct {
	name    string
	f       *os.File
	files   map[string]section // by path in the archive
	links   map[string]string  // symbolic links, which old archives have between equal layers
	made    map[digest.Digest]section
	entries []ocispec.Descriptor
}

// section is content in the archive, or made by us.
type section struct {
	at, n int64
	data  []byte
}

// maxMembers bounds an archive's files; the largest real ones have hundreds.
const maxMembers = 100_000

// OpenArchive opens the archive at path, "-" being stdin. It may be compressed with gzip or zstd. Close it.
func OpenArchive(ctx context.Context, path string, stdin io.Reader) (*Archive, error) {
	a := &Archive{name: path, files: map[string]section{}, links: map[string]string{}, made: map[digest.Digest]section{}}
	var err error
	if a.f, err = seekable(ctx, path, stdin); err != nil {
		return nil, err
	}
	if err := a.scan(ctx); err == nil {
		err = a.read(ctx)
		if err == nil {
			return a, nil
		}
		a.Close()
		return nil, fmt.Errorf("archive %s: %w", path, err)
	} else {
		a.Close()
		return nil, fmt.Errorf("archive %s: %w", path, err)
	}
}

// Close closes the file.
func (a *Archive) Close() error { return a.f.Close() }

// seekable opens path; a stream or a compressed file is spooled to a temporary file, which has no name.
func seekable(ctx context.Context, path string, stdin io.Reader) (*os.File, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		var magic [4]byte
		n, err := io.ReadFull(f, magic[:])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
			f.Close()
			return nil, err
		}
		st, err := f.Stat()
		if err == nil && st.Mode().IsRegular() && !compressed(magic[:n]) {
			_, err = f.Seek(0, io.SeekStart)
			return f, err
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		defer f.Close()
		in = io.MultiReader(bytes.NewReader(magic[:n]), f)
	}
	read := &counter{r: in}
	plain, err := decompress(read)
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", path, err)
	}
	defer plain.Close()
	tmp, err := os.CreateTemp("", "ctr-archive-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(tmp.Name()); err != nil {
		tmp.Close()
		return nil, err
	}
	if err = spool(ctx, tmp, plain, read); err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err != nil {
		tmp.Close()
		return nil, fmt.Errorf("archive %s: %w", path, err)
	}
	return tmp, nil
}

// Bounds of what is spooled. Images are compressed already, or shrink to a tenth.
const (
	maxSpoolRatio = 1000
	spoolAnyway   = 1 << 30 // bytes
)

// spool copies plain, which is made of what is read from in, as long as it looks like an archive.
func spool(ctx context.Context, to io.Writer, plain io.Reader, in *counter) error {
	var head [512]byte
	n, err := io.ReadFull(plain, head[:])
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return err
	}
	if _, err := tar.NewReader(bytes.NewReader(head[:n])).Next(); n > 0 && head == [512]byte{} || errors.Is(err, tar.ErrHeader) {
		return tar.ErrHeader
	}
	out := &counter{r: io.MultiReader(bytes.NewReader(head[:n]), plain)}
	for {
		_, err := io.CopyN(to, ctxReader{ctx, out}, 16<<20)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if out.n > spoolAnyway && out.n/in.n > maxSpoolRatio {
			return fmt.Errorf("%d bytes inflate to more than %d times as many", in.n, maxSpoolRatio)
		}
	}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

func compressed(magic []byte) bool {
	return bytes.HasPrefix(magic, gzipMagic) || bytes.HasPrefix(magic, zstdMagic)
}

func decompress(in io.Reader) (io.ReadCloser, error) {
	var magic [4]byte
	n, err := io.ReadFull(in, magic[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return nil, err
	}
	whole := io.MultiReader(bytes.NewReader(magic[:n]), in)
	switch {
	case bytes.HasPrefix(magic[:n], gzipMagic):
		return gzip.NewReader(whole)
	case bytes.HasPrefix(magic[:n], zstdMagic):
		z, err := zstd.NewReader(whole)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(whole), nil
}

// scan notes where the members are. archive/tar reads headers in whole blocks, so that after Next the file
// stands at the content.
func (a *Archive) scan(ctx context.Context) error {
	tr := tar.NewReader(a.f)
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			if n == 0 {
				return errors.New("empty: want a tar file of an image")
			}
			return nil
		}
		if err != nil {
			return err
		}
		if n == maxMembers {
			return fmt.Errorf("more than %d files", maxMembers)
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := a.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			for k := range h.PAXRecords {
				if strings.HasPrefix(k, "GNU.sparse.") {
					return fmt.Errorf("%s: sparse files are not supported in an image archive", name)
				}
			}
			if _, twice := a.files[name]; twice {
				return descriptor.Mismatch("ambiguous: %s is there twice", name)
			}
			a.files[name] = section{at: at, n: h.Size}
		case tar.TypeSymlink, tar.TypeLink:
			target := h.Linkname
			if h.Typeflag == tar.TypeSymlink {
				target = path.Join(path.Dir(name), target)
			}
			a.links[name] = strings.TrimPrefix(path.Clean("/"+target), "/")
		}
	}
}

func (a *Archive) file(name string) (section, bool) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for range 8 {
		if s, ok := a.files[name]; ok {
			return s, true
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return section{}, false
}

func (a *Archive) open(s section) io.Reader {
	if s.data != nil {
		return bytes.NewReader(s.data)
	}
	return io.NewSectionReader(a.f, s.at, s.n)
}

func (a *Archive) small(name string) ([]byte, error) {
	s, ok := a.file(name)
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if s.n > descriptor.MaxDocumentBytes {
		return nil, descriptor.Mismatch("%s: %d bytes, want at most %d", name, s.n, descriptor.MaxDocumentBytes)
	}
	return io.ReadAll(a.open(s))
}

// read finds out which images there are: by index.json, else by manifest.json.
func (a *Archive) read(ctx context.Context) error {
	data, err := a.small(ocispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a.readDocker(ctx)
	}
	if err != nil {
		return err
	}
	doc, err := descriptor.Parse(ocispec.MediaTypeImageIndex, data)
	if err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	for _, d := range doc.Index.Manifests {
		if full := d.Annotations[annotationContainerdName]; full != "" {
			d.Annotations[ocispec.AnnotationRefName] = full
		}
		a.entries = append(a.entries, d)
	}
	return nil
}

// readDocker reads what "docker save" wrote before it wrote OCI layouts: manifest.json, a config and the layers
// of each image. The manifest, which such archives do not have, is made.
func (a *Archive) readDocker(ctx context.Context) error {
	data, err := a.small("manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("neither index.json nor manifest.json: not an image archive")
	}
	if err != nil {
		return err
	}
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(data, &images); err != nil {
		return fmt.Errorf("manifest.json: %w", err)
	}
	for _, i := range images {
		config, err := a.small(i.Config)
		if err != nil {
			return fmt.Errorf("manifest.json: config: %w", err)
		}
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
		m.Config = a.make(ocispec.MediaTypeImageConfig, config)
		for _, name := range i.Layers {
			s, ok := a.file(name)
			if !ok {
				return fmt.Errorf("manifest.json: layer %s: %w", name, fs.ErrNotExist)
			}
			d, err := a.layer(ctx, s)
			if err != nil {
				return fmt.Errorf("layer %s: %w", name, err)
			}
			m.Layers = append(m.Layers, d)
		}
		doc, err := json.Marshal(m)
		if err != nil {
			return err
		}
		d := a.make(ocispec.MediaTypeImageManifest, doc)
		if len(i.RepoTags) == 0 {
			a.entries = append(a.entries, d)
		}
		for _, tag := range i.RepoTags {
			full, err := image.Normalize(tag)
			if err != nil {
				return fmt.Errorf("manifest.json: %w", err)
			}
			e := d
			e.Annotations = map[string]string{ocispec.AnnotationRefName: full}
			a.entries = append(a.entries, e)
		}
	}
	return nil
}

func (a *Archive) make(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	a.made[d.Digest] = section{data: data, n: d.Size}
	return d
}

func (a *Archive) layer(ctx context.Context, s section) (ocispec.Descriptor, error) {
	var magic [4]byte
	n, err := io.ReadFull(a.open(s), magic[:])
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: s.n}
	switch {
	case bytes.HasPrefix(magic[:n], gzipMagic):
		d.MediaType = ocispec.MediaTypeImageLayerGzip
	case bytes.HasPrefix(magic[:n], zstdMagic):
		d.MediaType = ocispec.MediaTypeImageLayerZstd
	}
	h := digest.Canonical.Digester()
	if _, err := io.Copy(h.Hash(), ctxReader{ctx, a.open(s)}); err != nil {
		return d, err
	}
	d.Digest = h.Digest()
	a.made[d.Digest] = s
	return d, nil
}

// Entries are the images of the archive, with their names in the annotation org.opencontainers.image.ref.name.
func (a *Archive) Entries() ([]ocispec.Descriptor, error) { return a.entries, nil }

// Resolve finds a name, a reference or a digest; "" is the only image there is.
func (a *Archive) Resolve(ctx context.Context, name string) (ocispec.Descriptor, error) {
	d, err := resolve(a.entries, name)
	if err != nil {
		return d, fmt.Errorf("archive %s: %w", a.name, err)
	}
	return d, nil
}

// Has says whether the archive has the content.
func (a *Archive) Has(d digest.Digest) bool {
	_, ok := a.find(d)
	return ok
}

func (a *Archive) find(d digest.Digest) (section, bool) {
	if descriptor.CheckDigest(d) != nil {
		return section{}, false
	}
	if s, ok := a.made[d]; ok {
		return s, true
	}
	return a.file("blobs/" + d.Algorithm().String() + "/" + d.Encoded())
}

// Fetch reads content.
func (a *Archive) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	s, ok := a.find(d.Digest)
	if !ok {
		return nil, fmt.Errorf("archive %s: blob %s: %w", a.name, d.Digest, fs.ErrNotExist)
	}
	return io.NopCloser(ctxReader{ctx, a.open(s)}), nil
}

// resolve finds what a person called an image among entries: the exact name, the full reference, a digest, or
// nothing where there is one image only.
func resolve(entries []ocispec.Descriptor, name string) (ocispec.Descriptor, error) {
	if name == "" {
		digests := map[digest.Digest]bool{}
		for _, e := range entries {
			digests[e.Digest] = true
		}
		switch len(digests) {
		case 0:
			return ocispec.Descriptor{}, fmt.Errorf("no image: %w", fs.ErrNotExist)
		case 1:
			return entries[0], nil
		}
		var names []string
		for _, e := range entries {
			n := e.Annotations[ocispec.AnnotationRefName]
			if n == "" {
				n = "@" + string(e.Digest)
			}
			names = append(names, n)
		}
		return ocispec.Descriptor{}, fault.Hint(fault.Usagef("%d images: want a name", len(entries)), "one of %s", strings.Join(names, ", "))
	}
	full, _ := image.Normalize(name)
	for _, want := range []string{name, full} {
		for _, e := range entries {
			if n := e.Annotations[ocispec.AnnotationRefName]; want != "" && (n == want || string(e.Digest) == want) {
				return e, nil
			}
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", name, fs.ErrNotExist)
}

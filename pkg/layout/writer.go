// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/descriptor"
)

// partialDir holds whatever is being written: temporary files, and partial blobs that a later fetch resumes.
const partialDir = "partial"

// A Writer adds blobs and names. From Begin to Close it holds a shared lock that keeps GC away, so that a
// blob that nothing names yet is safe. Its methods may be called by any number of goroutines.
type Writer struct {
	l    *Layout
	lock *atomicfile.Lock
}

// Begin starts writing. It waits for a GC that is at work.
func (l *Layout) Begin() (*Writer, error) {
	lock, err := atomicfile.LockPath(filepath.Join(l.dir, ocispec.ImageLayoutFile), false)
	if err != nil {
		return nil, err
	}
	if err := l.mkdir(partialDir); err != nil {
		lock.Unlock()
		return nil, err
	}
	return &Writer{l, lock}, nil
}

// Close lets GC in.
func (w *Writer) Close() error {
	w.lock.Unlock()
	return nil
}

// Layout is the layout being written.
func (w *Writer) Layout() *Layout { return w.l }

// Exists says whether a blob is there with the right size.
func (w *Writer) Exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	return w.l.Exists(ctx, d)
}

// temp opens a temporary file with the layout's owner and mode.
func (w *Writer) temp() (*atomicfile.File, error) {
	f, err := atomicfile.Create(filepath.Join(w.l.dir, partialDir, "blob"), 0o600)
	if err != nil {
		return nil, err
	}
	if err := w.l.adopt(f.File); err != nil {
		f.Abort()
		return nil, err
	}
	return f, nil
}

// commit puts a complete file in place as the blob d.
func (w *Writer) commit(f *atomicfile.File, d digest.Digest) error {
	if err := w.l.mkdir("blobs", d.Algorithm().String()); err != nil {
		return err
	}
	return f.CommitAs(filepath.Join(w.l.dir, blobPath(d)))
}

// Put stores the content of r and returns its descriptor. A nil error means that the blob is in the layout,
// not that this call put it there. Readers never see a part of a blob.
func (w *Writer) Put(ctx context.Context, mediaType string, r io.Reader) (ocispec.Descriptor, error) {
	p, err := w.Pending()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer p.Abort()
	if _, err := io.Copy(p, reader{ctx, r}); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: p.Digest(), Size: p.Size()}
	return d, p.Commit(d.Digest)
}

// A Pending is a blob that is being written, for those who get it in pieces and learn its digest at the end.
// Exactly one of Commit and Abort takes effect, the first one.
type Pending struct {
	w *Writer
	f *atomicfile.File
	h hash.Hash
	n int64
}

// Pending starts a blob.
func (w *Writer) Pending() (*Pending, error) {
	f, err := w.temp()
	if err != nil {
		return nil, err
	}
	return &Pending{w: w, f: f, h: digest.Canonical.Hash()}, nil
}

// Write appends to the blob.
func (p *Pending) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	p.h.Write(b[:n])
	p.n += int64(n)
	return n, err
}

// Size is the number of bytes written.
func (p *Pending) Size() int64 { return p.n }

// Digest is the SHA-256 of what has been written.
func (p *Pending) Digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.Canonical, p.h.Sum(nil))
}

// Abort forgets the blob.
func (p *Pending) Abort() { p.f.Abort() }

// Commit puts the blob in place if its digest is want, and forgets it with ErrDigestMismatch otherwise.
func (p *Pending) Commit(want digest.Digest) error {
	defer p.f.Abort()
	if err := descriptor.CheckDigest(want); err != nil {
		return err
	}
	got := p.Digest()
	if want.Algorithm() != digest.Canonical {
		if _, err := p.f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		var err error
		if got, err = want.Algorithm().FromReader(p.f); err != nil {
			return err
		}
	}
	if got != want {
		return descriptor.Mismatch("blob %s: content has another digest", want)
	}
	if p.w.l.hasWhole(ocispec.Descriptor{Digest: want, Size: p.n}) {
		return nil
	}
	return p.w.commit(p.f, want)
}

// PutVerified stores the content of r if it is what want says, and ErrDigestMismatch otherwise. A blob that
// is there already is not read.
func (w *Writer) PutVerified(ctx context.Context, want ocispec.Descriptor, r io.Reader) error {
	if err := descriptor.Check(want); err != nil {
		return err
	}
	if w.l.hasWhole(want) {
		return nil
	}
	f, err := w.temp()
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.Copy(f, reader{ctx, descriptor.Verify(want, r)}); err != nil {
		return err
	}
	return w.commit(f, want.Digest)
}

// PutJSON stores v, encoded without escapes for HTML.
func (w *Writer) PutJSON(ctx context.Context, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := EncodeJSON(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, w.PutBytes(ctx, d, data)
}

// PutBytes is PutVerified for content in memory.
func (w *Writer) PutBytes(ctx context.Context, want ocispec.Descriptor, data []byte) error {
	return w.PutVerified(ctx, want, bytes.NewReader(data))
}

// EncodeJSON is the encoding of PutJSON.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Tag gives d a name (see Layout.Tag).
func (w *Writer) Tag(name string, d ocispec.Descriptor) error { return w.l.Tag(name, d) }

// reader stops a copy when the context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

var errTaken = errors.New("another process is writing this blob")

func lstatSame(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

func partialPath(d digest.Digest) string {
	return filepath.Join(partialDir, fmt.Sprintf("%s-%s", d.Algorithm(), d.Encoded()))
}

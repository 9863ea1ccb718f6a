// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	f, err := w.temp()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Abort()
	h := digest.Canonical.Digester()
	n, err := io.Copy(io.MultiWriter(f, h.Hash()), reader{ctx, r})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: h.Digest(), Size: n}
	if w.l.hasWhole(d) {
		return d, nil
	}
	return d, w.commit(f, d.Digest)
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

// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// blobPath is relative to the layout. d has been checked: an unchecked digest never becomes a path.
func blobPath(d digest.Digest) string {
	return filepath.Join("blobs", d.Algorithm().String(), d.Encoded())
}

// Open opens the blob d without verifying it; Stat tells its size. It is for those who need ranges
// (the server of ctr-push) or verify themselves.
func (l *Layout) Open(d digest.Digest) (*os.File, error) {
	if err := descriptor.CheckDigest(d); err != nil {
		return nil, err
	}
	f, err := l.open(blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("blob %s: not in image layout %s: %w", d, l.dir, fs.ErrNotExist)
	}
	return f, err
}

// Size is the number of bytes of the blob d.
func (l *Layout) Size(d digest.Digest) (int64, error) {
	f, err := l.Open(d)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Has says whether the blob d is in the layout; its content is not looked at.
func (l *Layout) Has(d digest.Digest) bool {
	_, err := l.Size(d)
	return err == nil
}

// hasWhole is Has with the size compared, so that a truncated blob is written anew.
func (l *Layout) hasWhole(d ocispec.Descriptor) bool {
	n, err := l.Size(d.Digest)
	return err == nil && n == d.Size
}

// Exists says whether the blob is there with the right size.
func (l *Layout) Exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	if err := descriptor.Check(d); err != nil {
		return false, err
	}
	return l.hasWhole(d), nil
}

// Fetch reads a blob. Size and digest are checked while it is read: the reader fails with ErrDigestMismatch
// in place of io.EOF. Without the blob, the error is fs.ErrNotExist.
func (l *Layout) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := l.Open(d.Digest)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != d.Size {
		err = l.damaged(descriptor.Mismatch("blob %s: %d bytes in image layout %s, its descriptor says %d", d.Digest, st.Size(), l.dir, d.Size))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &blob{descriptor.Verify(d, f), f, ctx, l}, nil
}

func (l *Layout) damaged(err error) error {
	return fault.Hint(err, "ctr-fetch fsck --repair oci:%s", l.dir)
}

type blob struct {
	r   io.Reader
	f   *os.File
	ctx context.Context
	l   *Layout
}

func (b *blob) Read(p []byte) (int, error) {
	if err := context.Cause(b.ctx); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if errors.Is(err, ErrDigestMismatch) {
		err = b.l.damaged(fmt.Errorf("image layout %s: %w", b.l.dir, err))
	}
	return n, err
}

func (b *blob) Close() error { return b.f.Close() }

// ReadAll reads a document: verified, at most 4 MiB.
func (l *Layout) ReadAll(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > descriptor.MaxDocumentBytes {
		return nil, descriptor.Mismatch("document %s: %d bytes, want at most %d", d.Digest, d.Size, descriptor.MaxDocumentBytes)
	}
	r, err := l.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// Document reads and parses the index or manifest d.
func (l *Layout) Document(ctx context.Context, d ocispec.Descriptor) (*descriptor.Document, error) {
	data, err := l.ReadAll(ctx, d)
	if err != nil {
		return nil, err
	}
	doc, err := descriptor.Parse(d.MediaType, data)
	if err != nil {
		return nil, fmt.Errorf("document %s: %w", d.Digest, err)
	}
	return doc, nil
}

// read reads a small file of the layout itself.
func (l *Layout) read(name string, max int64) ([]byte, error) {
	f, err := l.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = descriptor.Mismatch("%s: more than %d bytes", name, max)
	}
	return data, err
}

// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/descriptor"
)

// A Partial is a blob that arrives over several connections, or several runs. What has arrived stays in the
// layout, under a name of its own, until the rest comes or GC removes it. Its writer holds an exclusive lock
// on the file. Its content is believed only when the whole is verified.
type Partial struct {
	w    *Writer
	f    *os.File
	d    ocispec.Descriptor
	hash hash.Hash
	n    int64
}

// patience is how long a Partial of another process may stand still before we write our own copy.
const patience = 20 * time.Second

// Partial opens the partial blob d for writing at its end. The result is nil where the blob is complete: it was
// there, or another process completed it while we waited for its lock. If that process gets nowhere, the
// result is a Partial of our own that starts empty.
func (w *Writer) Partial(ctx context.Context, d ocispec.Descriptor) (*Partial, error) {
	if err := descriptor.Check(d); err != nil {
		return nil, err
	}
	path := filepath.Join(w.l.dir, partialPath(d.Digest))
	var size int64
	since := time.Now()
	for {
		if w.l.hasWhole(d) {
			return nil, nil
		}
		f, err := w.lockPartial(path)
		if err == nil && w.l.hasWhole(d) { // completed between our look and our lock
			p := &Partial{w: w, f: f, d: d}
			return nil, p.Close()
		}
		if err == nil {
			return w.resume(f, d)
		}
		if !errors.Is(err, errTaken) {
			return nil, err
		}
		if st, err := os.Lstat(path); err == nil && st.Size() != size {
			size, since = st.Size(), time.Now()
		}
		if time.Since(since) > patience {
			f, err := w.temp()
			if err != nil {
				return nil, err
			}
			return &Partial{w: w, f: f.File, d: d, hash: d.Digest.Algorithm().Hash()}, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lockPartial opens path, or makes it, and locks it. errTaken: somebody else has it.
func (w *Writer) lockPartial(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK || err == nil && !lstatSame(f, path) { // renamed between open and lock
		err = errTaken
	}
	if err == nil {
		err = w.l.adopt(f)
	}
	if st, e := f.Stat(); err == nil && (e != nil || !st.Mode().IsRegular()) {
		err = descriptor.Mismatch("%s: want a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// resume hashes what is there.
func (w *Writer) resume(f *os.File, d ocispec.Descriptor) (*Partial, error) {
	p := &Partial{w: w, f: f, d: d, hash: d.Digest.Algorithm().Hash()}
	n, err := io.Copy(p.hash, f)
	if err == nil && n > d.Size {
		p.hash.Reset()
		n = 0
		if err = f.Truncate(0); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	p.n = n
	return p, nil
}

// Offset is the number of bytes that have arrived.
func (p *Partial) Offset() int64 { return p.n }

// Restart forgets what has arrived, for a server that does not know ranges.
func (p *Partial) Restart() error {
	p.hash.Reset()
	p.n = 0
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	return err
}

// Write appends. More bytes than the blob has are refused with ErrDigestMismatch.
func (p *Partial) Write(b []byte) (int, error) {
	if p.n+int64(len(b)) > p.d.Size {
		return 0, descriptor.Mismatch("blob %s: more bytes than the %d of its descriptor", p.d.Digest, p.d.Size)
	}
	n, err := p.f.Write(b)
	p.hash.Write(b[:n])
	p.n += int64(n)
	return n, err
}

// Commit puts the blob in place if it is complete and right. Wrong content is removed, and the error is
// ErrDigestMismatch; fewer bytes than due stay, and the error is io.ErrUnexpectedEOF.
func (p *Partial) Commit() error {
	defer p.f.Close()
	if p.n < p.d.Size {
		return io.ErrUnexpectedEOF
	}
	algorithm := p.d.Digest.Algorithm()
	if p.n != p.d.Size || string(p.d.Digest) != algorithm.String()+":"+algorithm.Encode(p.hash.Sum(nil)) {
		os.Remove(p.f.Name())
		return descriptor.Mismatch("blob %s: content has another digest", p.d.Digest)
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	if err := p.w.l.mkdir("blobs", algorithm.String()); err != nil {
		return err
	}
	path := filepath.Join(p.w.l.dir, blobPath(p.d.Digest))
	if err := os.Rename(p.f.Name(), path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// Close keeps what has arrived for the next run. After Commit it does nothing.
func (p *Partial) Close() error {
	if p.n == 0 && lstatSame(p.f, p.f.Name()) { // ours still: its lock is
		os.Remove(p.f.Name())
	}
	if err := p.f.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

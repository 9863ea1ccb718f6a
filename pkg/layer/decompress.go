// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// maxWindow bounds what a zstd stream may make its reader allocate.
const maxWindow = 128 << 20

// ErrLimit is what errors about the limits in Options match.
var ErrLimit = errors.New("limit exceeded")

// sniff tells the compression by a stream's first bytes. An empty stream is an empty archive.
func sniff(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}): // skippable frame
		return Zstd
	case bytes.HasPrefix(head, []byte("BZh")) && len(head) >= 10 && bytes.Equal(head[4:10], []byte("1AY&SY")):
		return Bzip2
	}
	return None
}

// Decompress returns a reader of the uncompressed archive. The compression is told by the content; if
// mediaType is given and names another one, that is an error. Close frees the decompressor, not r.
func Decompress(r io.Reader, mediaType string) (io.ReadCloser, Compression, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(10)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	c := sniff(head)
	if mediaType != "" {
		want, err := ofMediaType(mediaType)
		if err != nil {
			return nil, "", fault.As(fault.ErrUnverified, err)
		}
		if c != want {
			return nil, "", fault.As(fault.ErrUnverified, fmt.Errorf("layer content is compressed with %s, media type %s says %s", c, mediaType, want))
		}
	}
	switch c {
	case Gzip:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, c, fmt.Errorf("gzip: %w", err)
		}
		return &decompressor{z, "gzip", func() { z.Close() }}, c, nil
	case Zstd:
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, c, fmt.Errorf("zstd: %w", err)
		}
		return &decompressor{z, "zstd", z.Close}, c, nil
	case Bzip2:
		return &decompressor{bzip2.NewReader(b), "bzip2", func() {}}, c, nil
	}
	return io.NopCloser(b), None, nil
}

type decompressor struct {
	io.Reader
	name  string
	close func()
}

func (d *decompressor) Read(b []byte) (int, error) {
	n, err := d.Reader.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", d.name, err)
	}
	return n, err
}

func (d *decompressor) Close() error { d.close(); return nil }

// chunkBytes is the unit in which stages hand over; deep enough to ride out file creation, which comes in bursts.
const (
	chunkBytes = 128 << 10
	chunks     = 16
)

// ahead reads from r on a goroutine of its own, so that reading, inflating, hashing and writing files overlap.
type ahead struct {
	full, free chan []byte
	stop, done chan struct{}
	cur, buf   []byte
	err        error // valid when full is closed
	once       sync.Once
}

func newAhead(r io.Reader, tap func([]byte) error) *ahead {
	a := &ahead{full: make(chan []byte, chunks), free: make(chan []byte, chunks), stop: make(chan struct{}), done: make(chan struct{})}
	for range chunks {
		a.free <- nil // allocated when first used: small layers need one
	}
	go func() {
		defer close(a.done)
		defer close(a.full)
		for {
			var b []byte
			select {
			case b = <-a.free:
			case <-a.stop:
				return
			}
			if b == nil {
				b = make([]byte, chunkBytes)
			}
			n, err := readFull(r, b[:chunkBytes])
			if n > 0 && tap != nil {
				if e := tap(b[:n]); e != nil {
					n, err = 0, e
				}
			}
			if n > 0 {
				a.full <- b[:n] // never blocks: as deep as there are buffers
			}
			if err != nil {
				a.err = err
				return
			}
		}
	}()
	return a
}

// readFull fills b as far as r goes; unlike io.ReadFull it leaves r's error as it is.
func readFull(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

func (a *ahead) Read(b []byte) (int, error) {
	if len(a.cur) == 0 {
		if a.buf != nil {
			a.free <- a.buf[:0:cap(a.buf)]
			a.buf = nil
		}
		c, ok := <-a.full
		if !ok {
			if a.err == nil {
				return 0, io.EOF
			}
			return 0, a.err
		}
		a.cur, a.buf = c, c
	}
	n := copy(b, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// Close ends the goroutine. A Read of r that is under way is waited for.
func (a *ahead) Close() {
	a.end()
	<-a.done
}

func (a *ahead) end() { a.once.Do(func() { close(a.stop) }) }

// abandon ends the stage below first: this one's goroutine may be waiting for it.
func (a *ahead) abandon(below *ahead) {
	below.Close()
	a.Close()
}

// counter counts the bytes read from r.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Compression of a layer.
type Compression string

// Compressions. Bzip2 is only read.
const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
)

// MediaType is the OCI media type of a layer with this compression.
func (c Compression) MediaType() string {
	switch c {
	case Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayer
}

// ofMediaType is the compression that a layer's media type names, OCI or Docker, distributable or not.
func ofMediaType(mediaType string) (Compression, error) {
	base, _, _ := strings.Cut(mediaType, ";")
	base, suffix, _ := strings.Cut(base, "+")
	switch {
	case strings.HasSuffix(base, ".tar.gzip") || suffix == "gzip":
		suffix = "gzip"
	case strings.HasSuffix(base, ".tar.zstd") || suffix == "zstd":
		suffix = "zstd"
	case suffix != "":
		return "", fmt.Errorf("layer media type %s: compression %q, want gzip, zstd or none", mediaType, suffix)
	}
	switch strings.TrimSuffix(strings.TrimSuffix(base, ".gzip"), ".zstd") {
	case ocispec.MediaTypeImageLayer, "application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar":
	default:
		return "", fmt.Errorf("media type %s is no layer archive's", mediaType)
	}
	if suffix == "" {
		return None, nil
	}
	return Compression(suffix), nil
}

// A Compressor compresses a layer archive while it hashes both sides, in one pass.
type Compressor struct {
	out   io.Writer // compressor, or the hashing writer below it
	close func() error
	plain digest.Digester
	blob  digest.Digester
	size  int64
	sink  io.Writer
	c     Compression
}

// A Blob describes a compressed layer.
type Blob struct {
	Descriptor ocispec.Descriptor // media type, digest, size
	DiffID     digest.Digest
}

// NewCompressor returns a Compressor that writes to w. level is gzip's 1–9 or zstd's 1–4; 0: 3 and 1, which are
// fast and, for layers, within a few per cent of the best. The same input gives the same output.
func NewCompressor(w io.Writer, c Compression, level int) (*Compressor, error) {
	k := &Compressor{plain: digest.SHA256.Digester(), blob: digest.SHA256.Digester(), sink: w, c: c}
	low := writerFunc(k.compressed)
	switch c {
	case None, "":
		k.c, k.out, k.close = None, low, func() error { return nil }
	case Gzip:
		if level == 0 {
			level = 3
		}
		z, err := gzip.NewWriterLevel(low, level) // header without name and time: reproducible
		if err != nil {
			return nil, err
		}
		k.out, k.close = z, z.Close
	case Zstd:
		if level == 0 {
			level = 1
		}
		z, err := zstd.NewWriter(low, zstd.WithEncoderLevel(zstd.EncoderLevel(level)), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		k.out, k.close = z, z.Close
	default:
		return nil, fmt.Errorf("compression %q, want gzip, zstd or none", c)
	}
	return k, nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (k *Compressor) compressed(b []byte) (int, error) {
	k.blob.Hash().Write(b)
	n, err := k.sink.Write(b)
	k.size += int64(n)
	return n, err
}

// Write takes bytes of the uncompressed archive.
func (k *Compressor) Write(b []byte) (int, error) {
	k.plain.Hash().Write(b)
	return k.out.Write(b)
}

// Close ends the stream and says what was written. It does not close the writer below.
func (k *Compressor) Close() (Blob, error) {
	if err := k.close(); err != nil {
		return Blob{}, err
	}
	return Blob{
		Descriptor: ocispec.Descriptor{MediaType: k.c.MediaType(), Digest: k.blob.Digest(), Size: k.size},
		DiffID:     k.plain.Digest(),
	}, nil
}

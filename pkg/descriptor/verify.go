// SPDX-License-Identifier: Apache-2.0

// Package descriptor is about content named by media type, digest and size: the check that bytes are the
// content meant, and the reading of index and manifest documents so that no two readers can disagree on
// what a document says. It opens no files and speaks no protocol.
package descriptor

import (
	_ "crypto/sha256" // makes the algorithms available to go-digest
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// MaxDocumentBytes is the largest index, manifest or config that is read (distribution-spec: registries
// should accept 4 MiB, nobody may rely on more).
const MaxDocumentBytes = 4 << 20

// ErrDigestMismatch says that content is not what its descriptor says; it is of the kind fault.ErrUnverified.
var ErrDigestMismatch = fault.As(fault.ErrUnverified, errors.New("content does not match its descriptor"))

type mismatch struct{ msg string }

func (m mismatch) Error() string { return m.msg }
func (m mismatch) Is(target error) bool {
	return target == ErrDigestMismatch || target == fault.ErrUnverified
}

// Mismatch is an ErrDigestMismatch with its own sentence.
func Mismatch(format string, args ...any) error { return mismatch{fmt.Sprintf(format, args...)} }

// Check refuses a descriptor whose digest could not be used as a file name, or whose size is negative.
func Check(d ocispec.Descriptor) error {
	if err := CheckDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return Mismatch("blob %s: size %d, want 0 or more", d.Digest, d.Size)
	}
	return nil
}

// CheckDigest refuses a digest that is not a known algorithm, a colon and the right number of lower-case
// hexadecimal digits.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return Mismatch("digest %q: %v", string(d), err)
	}
	return nil
}

// Verify reads content and checks size and digest: more or fewer bytes than d.Size or another digest is
// ErrDigestMismatch, given at the latest where io.EOF would be. Nothing past d.Size is read, but one byte.
func Verify(d ocispec.Descriptor, r io.Reader) io.Reader {
	if err := Check(d); err != nil {
		return &verifier{err: err}
	}
	return &verifier{d: d, r: r, v: d.Digest.Verifier()}
}

type verifier struct {
	d   ocispec.Descriptor
	r   io.Reader
	v   digest.Verifier
	n   int64
	err error
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	// One byte more than what is due is asked for, to see an end that does not come.
	if rest := v.d.Size - v.n; int64(len(p)) > rest+1 {
		p = p[:rest+1]
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	if v.n > v.d.Size {
		v.err = Mismatch("blob %s: more bytes than the %d of its descriptor", v.d.Digest, v.d.Size)
		return 0, v.err
	}
	v.v.Write(p[:n])
	if err == io.EOF {
		if v.n != v.d.Size {
			err = Mismatch("blob %s: got %d bytes, its descriptor says %d", v.d.Digest, v.n, v.d.Size)
		} else if !v.v.Verified() {
			err = Mismatch("blob %s: content has another digest", v.d.Digest)
		}
	}
	if err != nil {
		v.err = err
	}
	return n, err
}

// ReadAll reads a whole document of at most MaxDocumentBytes and verifies it.
func ReadAll(d ocispec.Descriptor, r io.Reader) ([]byte, error) {
	if d.Size > MaxDocumentBytes {
		return nil, Mismatch("document %s: %d bytes, want at most %d", d.Digest, d.Size, MaxDocumentBytes)
	}
	return io.ReadAll(Verify(d, r))
}

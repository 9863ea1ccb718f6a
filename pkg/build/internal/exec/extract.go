// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/ulikunitz/xz"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/layer"
)

// extract unpacks m at the destination if it is a tar archive, plain or compressed; the content tells, not
// the name. done is false where it is another file.
func (k *copier) extract(m match) (done bool, err error) {
	v := &opener{}
	if err := k.src.walk(k.ctx, m, k.do.Exclude, v); err != nil || v.f == nil {
		return false, err
	}
	defer v.f.Close()
	ok, err := isTar(v.f)
	if err != nil || !ok {
		return false, err
	}
	if err := k.makeDirs(k.do.Dest); err != nil {
		return true, err
	}
	opts := layer.Options{Form: layer.Plain{}, Dir: k.do.Dest, Literal: true}
	if k.do.Chown != "" {
		opts.Owner = k.owner
	}
	r, err := unxz(v.f)
	if err != nil {
		return true, fmt.Errorf("unpack %s: %w", m.given, err)
	}
	if _, err := layer.Apply(k.ctx, r, k.dst, opts); err != nil {
		return true, fmt.Errorf("unpack %s: %w", m.given, err)
	}
	if err := k.src.unchanged(v.f); err != nil {
		return true, fault.As(fault.ErrTryAgain, fmt.Errorf("%s: %w", m.given, err))
	}
	return true, nil
}

// opener keeps the file that a walk meets open.
type opener struct{ f *os.File }

func (o *opener) enter(*entry) error { return nil }
func (o *opener) leave(*entry) error { return nil }
func (o *opener) file(e *entry) (err error) {
	if e.st.Mode&0o170000 == 0o100000 {
		o.f, err = e.open()
	}
	return err
}

// isTar looks for a first tar header, and goes back to the start. An archive that is broken further on is an
// archive nevertheless.
func isTar(f *os.File) (bool, error) {
	defer f.Seek(0, io.SeekStart)
	plain, err := unxz(f)
	if err != nil {
		return false, nil // not what its first bytes promised
	}
	r, _, err := layer.Decompress(plain, "")
	if err != nil {
		return false, nil
	}
	defer r.Close()
	h, err := tar.NewReader(r).Next()
	return err == nil && h != nil, nil
}

// unxz decompresses f if it is an xz stream, the one compression that ADD takes and layers do not have.
func unxz(f *os.File) (io.Reader, error) {
	var magic [6]byte
	if n, _ := f.ReadAt(magic[:], 0); string(magic[:n]) != "\xfd7zXZ\x00" {
		return f, nil
	}
	return xz.NewReader(bufio.NewReader(f))
}

// SPDX-License-Identifier: Apache-2.0

// Package progress draws progress bars on stderr when that is a terminal, and nothing otherwise. It is
// apart from package cli so that ctr-run does not link a drawing library.
package progress

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Bars is a set of bars drawn together. The nil *Bars draws nothing.
type Bars struct{ p *mpb.Progress }

// New starts drawing if stderr is a terminal and quiet is false; else it returns nil. Wait ends it.
func New(quiet bool) *Bars {
	if quiet || !term.IsTerminal(int(os.Stderr.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &Bars{mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(40))}
}

// Reader counts what is read from r on a bar of sizeBytes (0 or less: unknown).
func (b *Bars) Reader(name string, sizeBytes int64, r io.Reader) io.ReadCloser {
	if b == nil {
		return io.NopCloser(r)
	}
	bar := b.p.AddBar(sizeBytes,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
	return &reader{bar.ProxyReader(r), bar}
}

type reader struct {
	io.ReadCloser
	bar *mpb.Bar
}

func (r *reader) Close() error {
	if !r.bar.Completed() {
		r.bar.Abort(false)
	}
	return r.ReadCloser.Close()
}

// Wait lets the bars finish drawing.
func (b *Bars) Wait() {
	if b != nil {
		b.p.Wait()
	}
}

// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
)

// printer writes plain progress: a line when an operation starts or is found in the cache, and each line that a
// step prints behind the place of its instruction. Operations run side by side; lines are never mixed.
type printer struct {
	mu    sync.Mutex
	w     io.Writer
	quiet bool
}

func newPrinter(w io.Writer, quiet bool) *printer {
	if w == nil {
		w = io.Discard
	}
	return &printer{w: w, quiet: quiet}
}

func (p *printer) line(s string) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.w, s)
}

func at(op *graph.Op) string { return fmt.Sprintf("%s:%d", op.File, op.Line) }

func (p *printer) started(op *graph.Op) {
	if _, ok := op.Do.(*graph.Run); ok {
		return // said when it really runs: most are in the cache
	}
}

func (p *printer) finished(op *graph.Op, cached bool, took time.Duration) {
	how := fmt.Sprintf("%.1fs", took.Seconds())
	if cached {
		how = "cached"
	}
	p.line(fmt.Sprintf("%s: %s (%s)", at(op), graph.Short(op.Text), how))
}

// keepLines is how much of a quiet step's output is shown if it fails.
const keepLines = 20

// maxLine bounds a line that is held back for its end.
const maxLine = 64 << 10

// stepOutput is what a RUN writes to.
type stepOutput struct {
	p      *printer
	prefix string
	mu     sync.Mutex
	rest   []byte
	last   []string // of a quiet build
}

func (p *printer) output(op *graph.Op) *stepOutput {
	p.line(at(op) + ": " + graph.Short(op.Text))
	return &stepOutput{p: p, prefix: at(op) + " | "}
}

func (o *stepOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest = append(o.rest, b...)
	for {
		i := bytes.IndexByte(o.rest, '\n')
		switch {
		case i >= 0:
			o.put(string(o.rest[:i]))
			o.rest = o.rest[i+1:]
		case len(o.rest) > maxLine:
			o.put(string(o.rest))
			o.rest = nil
		default:
			return len(b), nil
		}
	}
}

// put prints a line. Of progress that redraws itself with carriage returns, only the last state is left.
func (o *stepOutput) put(s string) {
	s = strings.TrimRight(s, "\r")
	if i := strings.LastIndexByte(s, '\r'); i >= 0 {
		s = s[i+1:]
	}
	if o.p.quiet {
		if o.last = append(o.last, s); len(o.last) > keepLines {
			o.last = o.last[1:]
		}
		return
	}
	o.p.line(o.prefix + s)
}

// end prints what is left, and for a quiet step that failed what it said last.
func (o *stepOutput) end(failed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.rest) > 0 {
		o.put(string(o.rest))
	}
	if failed && o.p.quiet {
		o.p.mu.Lock()
		defer o.p.mu.Unlock()
		for _, s := range o.last {
			fmt.Fprintln(o.p.w, o.prefix+s)
		}
	}
}

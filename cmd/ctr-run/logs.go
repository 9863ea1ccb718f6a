// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/log"
	"github.com/ctr-tools/ctr/pkg/supervise"
)

// newLogs is "ctr-run logs": what a supervised container wrote.
func newLogs() *cobra.Command {
	var follow, stamps, raw bool
	var tail, since, until string
	c := &cobra.Command{
		Use:   "logs [-f] [-t] [--tail N] [--since TIME] [--until TIME] ID",
		Short: "print what a supervised container wrote",
		Args:  cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "wait for more until the container has ended for good")
	f.BoolVarP(&stamps, "timestamps", "t", false, "put the time before each line")
	f.StringVarP(&tail, "tail", "n", "all", "`LINES` from the end")
	f.StringVar(&since, "since", "", "only lines from this `TIME` on: 2026-01-02T15:04:05Z, or 10m before now")
	f.StringVar(&until, "until", "", "only lines before this `TIME`")
	f.BoolVar(&raw, "raw", false, "on a terminal too, print control characters as they are")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		opt := log.ReadOptions{Follow: follow}
		now := time.Now()
		if since != "" {
			if opt.Since, err = log.ParseTime(since, now); err != nil {
				return fault.As(fault.ErrUsage, fmt.Errorf("--since: %w", err))
			}
		}
		if until != "" {
			if opt.Until, err = log.ParseTime(until, now); err != nil {
				return fault.As(fault.ErrUsage, fmt.Errorf("--until: %w", err))
			}
		}
		if tail != "all" {
			n, err := strconv.Atoi(tail)
			if err != nil {
				return fault.Usagef("--tail=%s: want a number of lines, or all", tail)
			}
			if opt.Tail = n; n == 0 {
				opt.Tail = -1
			} else if n < 0 {
				opt.Tail = 0
			}
		}
		root, id := stateRoot(c), args[0]
		r, err := supervise.Load(root, id)
		if err != nil {
			return err
		}
		if opt.Since.IsZero() {
			opt.Since = r.CreatedAt // the bundle's log may begin with another container's lines
		}
		if follow {
			done := make(chan struct{})
			opt.Done = done
			go func() {
				supervise.Wait(c.Context(), root, id, supervise.UntilStopped)
				close(done)
			}()
		}
		b, err := bundle.Open(r.Bundle)
		if err != nil {
			return err
		}
		out := map[log.Stream]*printer{
			log.Stdout: newPrinter(c.OutOrStdout(), stamps, !raw),
			log.Stderr: newPrinter(c.ErrOrStderr(), stamps, !raw),
		}
		last := log.Stdout
		opt.Idle = func() error { return out[last].w.Flush() }
		return log.Read(c.Context(), b.Path(bundle.LogFile), opt, func(r log.Record) error {
			if r.Stream != last { // where both are one file, the order stays
				if err := out[last].w.Flush(); err != nil {
					return err
				}
				last = r.Stream
			}
			return out[r.Stream].print(r)
		})
	}
	return c
}

// A printer writes the records of one stream.
type printer struct {
	w      *bufio.Writer
	stamps bool
	quote  bool // stdout is a terminal: nothing in the log is to take it over
	open   bool // the last record was partial
	line   []byte
}

func newPrinter(w io.Writer, stamps, quote bool) *printer {
	p := &printer{w: bufio.NewWriterSize(w, 32<<10), stamps: stamps}
	if f, ok := w.(interface{ Fd() uintptr }); ok && quote {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.quote = err == nil
	}
	return p
}

func (p *printer) print(r log.Record) error {
	p.line = p.line[:0]
	if p.stamps && !p.open {
		p.line = r.Time.UTC().AppendFormat(p.line, "2006-01-02T15:04:05.000000000Z ")
	}
	p.open = r.Partial
	if p.quote {
		r.Text = harmless(r.Text)
	}
	_, err := p.w.Write(r.AppendRaw(p.line))
	return err
}

// harmless quotes what could command a terminal: control characters but tab, carriage return before the line's end, and colours.
func harmless(text []byte) []byte {
	bad := func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError }
	if bytes.IndexFunc(text, bad) < 0 {
		return text
	}
	var b []byte
	for i := 0; i < len(text); {
		if n := colour(text[i:]); n > 0 {
			b = append(b, text[i:i+n]...)
			i += n
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == '\r' && i == len(text)-1, !bad(r):
			b = append(b, text[i:i+n]...)
		default:
			for _, c := range text[i : i+n] {
				b = fmt.Appendf(b, "\\x%02x", c)
			}
		}
		i += n
	}
	return b
}

// colour is the length of an SGR sequence (ESC [ digits ; … m) at the start of b, 0: there is none.
func colour(b []byte) int {
	if !bytes.HasPrefix(b, []byte("\x1b[")) {
		return 0
	}
	for i, c := range b[2:] {
		switch {
		case c == 'm':
			return i + 3
		case (c < '0' || c > '9') && c != ';' || i > 30:
			return 0
		}
	}
	return 0
}

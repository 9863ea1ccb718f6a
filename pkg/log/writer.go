// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// WriterOptions bound a log. The zero value is the default, 10 MiB in each of 3 files.
type WriterOptions struct {
	SizeBytes int64 // a file that would grow beyond is rotated; 0: 10 MiB
	Files     int   // files kept, the current one included; 0: 3
}

const (
	defaultSizeBytes = 10 << 20
	defaultFiles     = 3
)

// A Writer appends records to a log. It is safe for use by several goroutines; one process writes a log.
type Writer struct {
	mu   sync.Mutex
	path string
	opt  WriterOptions
	f    *os.File
	size int64
	out  []byte // records of one Write, reused
	held map[Stream][]byte
}

// OpenWriter opens the log at path, made with mode 0600 where it is missing. A line that an earlier writer left
// without its end is ended. A symbolic link at path is an error.
func OpenWriter(path string, opt WriterOptions) (*Writer, error) {
	if opt.SizeBytes <= 0 {
		opt.SizeBytes = defaultSizeBytes
	}
	if opt.Files <= 0 {
		opt.Files = defaultFiles
	}
	w := &Writer{path: path, opt: opt, held: map[Stream][]byte{}}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, w.endLines()
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: w.path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return err
	}
	w.f, w.size = f, st.Size()
	return nil
}

// endLines repairs what a killed writer may have left: half a record, and partial records that no full one
// follows, so that the next run's first line is a line of its own (spec/log.md, Runs).
func (w *Writer) endLines() error {
	tail := make([]byte, min(w.size, 4*maxRecordBytes))
	if _, err := w.f.ReadAt(tail, w.size-int64(len(tail))); err != nil && err != io.EOF {
		return err
	}
	if len(tail) == 0 {
		return nil
	}
	if end := bytes.LastIndexByte(tail, '\n') + 1; end != len(tail) {
		w.size -= int64(len(tail) - end)
		if err := w.f.Truncate(w.size); err != nil {
			return err
		}
		tail = tail[:end]
	}
	open := map[Stream]bool{}
	for line := range bytes.Lines(tail) {
		if r, err := Parse(bytes.TrimSuffix(line, []byte{'\n'})); err == nil {
			open[r.Stream] = r.Partial
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = w.out[:0]
	for _, s := range []Stream{Stdout, Stderr} {
		if open[s] {
			w.out = Record{Time: time.Now(), Stream: s}.Append(w.out)
		}
	}
	return w.flush()
}

// Write appends what a stream of the container brought, at time t. Bytes after the last newline are held back
// until their line ends, reaches [MaxTextBytes], or [Writer.End] is called. After an error the log is whole:
// the records of this call are in it or not.
func (w *Writer) Write(s Stream, t time.Time, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = w.out[:0]
	held := w.held[s]
	for len(p) > 0 {
		room := MaxTextBytes - len(held)
		i := bytes.IndexByte(p[:min(len(p), room+1)], '\n')
		r := Record{Time: t, Stream: s}
		switch {
		case i >= 0:
			r.Text, p = p[:i], p[i+1:]
		case len(p) > room:
			r.Text, p, r.Partial = p[:room], p[room:], true
		default:
			held = append(held, p...)
			w.held[s] = held
			return w.flush()
		}
		if len(held) > 0 {
			held = append(held, r.Text...)
			r.Text = held
		}
		w.out = r.Append(w.out)
		held = held[:0]
	}
	w.held[s] = held
	return w.flush()
}

// End says that the streams ended: what is held back becomes partial records.
func (w *Writer) End(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = w.out[:0]
	for _, s := range []Stream{Stdout, Stderr} {
		if len(w.held[s]) > 0 {
			w.out = Record{Time: t, Stream: s, Partial: true, Text: w.held[s]}.Append(w.out)
			w.held[s] = w.held[s][:0]
		}
	}
	return w.flush()
}

// NewRun ends the lines that the streams' last records left open.
func (w *Writer) NewRun() error {
	if err := w.End(time.Now()); err != nil {
		return err
	}
	return w.endLines()
}

// Close ends the streams and closes the log.
func (w *Writer) Close() error {
	return errors.Join(w.End(time.Now()), w.f.Close())
}

// flush writes w.out, whole records, and rotates before where they do not fit.
func (w *Writer) flush() error {
	out := w.out
	for len(out) > 0 {
		fit := out
		if room := w.opt.SizeBytes - w.size; int64(len(out)) > room {
			fit = out[:max(0, 1+bytes.LastIndexByte(out[:max(0, room)], '\n'))]
			if len(fit) == 0 && w.size == 0 {
				fit = out[:1+bytes.IndexByte(out, '\n')] // one record larger than a file
			}
		}
		if len(fit) == 0 {
			if err := w.rotate(); err != nil {
				return err
			}
			continue
		}
		n, err := w.f.Write(fit)
		if err != nil {
			if n > 0 {
				w.f.Truncate(w.size) // a full disk: no half record
			}
			return err
		}
		w.size += int64(n)
		out = out[n:]
	}
	return nil
}

// rotate renames log.1 to log.2 and so on, log to log.1, and starts a new file. A writer killed in between
// leaves a log without its newest file, which reads as an empty one.
func (w *Writer) rotate() error {
	for i := w.opt.Files - 1; i > 0; i-- {
		if err := os.Rename(rotated(w.path, i-1), rotated(w.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if w.opt.Files == 1 {
		if err := os.Remove(w.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	old := w.f
	if err := w.open(); err != nil {
		w.f = old
		return err
	}
	old.Close()
	return nil
}

// rotated is the name of the i-th file of a log, 0 the current one.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

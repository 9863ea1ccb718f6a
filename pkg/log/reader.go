// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxFiles bounds how many rotated files a reader looks for.
const maxFiles = 100

// ReadOptions choose records. The zero value is all of them, and no waiting for more.
type ReadOptions struct {
	Tail   int             // the last Tail lines only; 0: all; below 0: none
	Since  time.Time       // records at this time or later; zero: no bound
	Until  time.Time       // records before this time; zero: no bound
	Follow bool            // wait for further records until Done or the context ends
	Done   <-chan struct{} // with Follow: once closed, what is there is read to its end
	Idle   func() error    // called when all there is was given, before waiting and at the end; may be nil
}

// Read gives the chosen records of the log at path to emit, oldest first. Lines that are no records are
// skipped: a log may hold half of one after a crash. A record's Text is valid until emit returns. A log that
// does not exist is fs.ErrNotExist, with Follow an empty one.
func Read(ctx context.Context, path string, opt ReadOptions, emit func(Record) error) error {
	var wake *watch
	if opt.Follow {
		var err error
		if wake, err = watchFile(path); err != nil {
			return err
		}
		defer wake.Close()
	}
	files, err := open(path)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil && !(opt.Follow && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if opt.Tail != 0 {
		if files, err = seekTail(files, max(0, opt.Tail)); err != nil {
			return err
		}
	}
	r := &reader{opt: opt, emit: emit}
	var last *os.File
	for _, f := range files {
		if err := r.drain(ctx, f); err != nil {
			return err
		}
		last = f
	}
	if opt.Follow && !r.past {
		if err := r.follow(ctx, path, last, wake); err != nil {
			return err
		}
	}
	return r.idle()
}

// open opens the files of a log, oldest first. A rotation meanwhile is noticed by a file that comes twice.
func open(path string) ([]*os.File, error) {
	for {
		var files []*os.File
		var seen []os.FileInfo
		again := false
		for i := 0; i < maxFiles; i++ {
			f, err := os.OpenFile(rotated(path, i), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if errors.Is(err, fs.ErrNotExist) {
				if i == 0 {
					continue // between two renames of a rotation
				}
				break
			}
			var st os.FileInfo
			if err == nil {
				st, err = f.Stat()
			}
			if err == nil && !st.Mode().IsRegular() {
				f.Close()
				err = &fs.PathError{Op: "open", Path: rotated(path, i), Err: errors.New("not a regular file")}
			}
			if err != nil {
				return files, err
			}
			for _, s := range seen {
				again = again || os.SameFile(s, st)
			}
			files, seen = append([]*os.File{f}, files...), append(seen, st)
		}
		if !again {
			if len(files) == 0 {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
	}
}

type reader struct {
	opt  ReadOptions
	emit func(Record) error
	line []byte // the start of a record whose newline is still to come
	past bool   // a record at or after Until was seen
}

// drain reads f from its position to its end.
func (r *reader) drain(ctx context.Context, f *os.File) error {
	b := bufio.NewReaderSize(f, 64<<10)
	for !r.past {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := b.ReadSlice('\n')
		if err == nil && len(r.line) == 0 {
			if err := r.record(line[:len(line)-1]); err != nil {
				return err
			}
			continue
		}
		if len(r.line) <= 1<<20 { // a longer line is no record: drop the rest of it
			r.line = append(r.line, line...)
		}
		switch err {
		case nil:
			line, r.line = bytes.TrimSuffix(r.line, []byte{'\n'}), r.line[:0]
			if err := r.record(line); err != nil {
				return err
			}
		case io.EOF:
			return nil
		case bufio.ErrBufferFull:
		default:
			return err
		}
	}
	return nil
}

func (r *reader) idle() error {
	if r.opt.Idle == nil {
		return nil
	}
	return r.opt.Idle()
}

func (r *reader) record(line []byte) error {
	rec, err := Parse(line)
	if err != nil {
		return nil
	}
	if !r.opt.Until.IsZero() && !rec.Time.Before(r.opt.Until) {
		r.past = true
		return nil
	}
	if rec.Time.Before(r.opt.Since) {
		return nil
	}
	return r.emit(rec)
}

// seekTail drops files and sets the position of the first that stays, so that n lines remain. A line is a
// full record; a partial one counts only where it is the last (spec/log.md, Reading).
func seekTail(files []*os.File, n int) ([]*os.File, error) {
	lines, last := 0, true
	for i := len(files) - 1; i >= 0; i-- {
		f := files[i]
		end, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return files, err
		}
		var rest []byte // start of the line whose beginning is in an earlier block
		for pos := end; pos > 0; {
			size := min(pos, 64<<10)
			pos -= size
			block := make([]byte, size, int(size)+len(rest))
			if _, err := f.ReadAt(block, pos); err != nil && err != io.EOF {
				return files, err
			}
			block = append(block, rest...)
			stop := len(block)
			for stop > 0 {
				start := bytes.LastIndexByte(block[:stop-1], '\n') + 1
				if start == 0 && pos > 0 {
					break // the line begins in an earlier block
				}
				rec, err := Parse(bytes.TrimSuffix(block[start:stop], []byte{'\n'}))
				if err == nil {
					if !rec.Partial || last {
						lines++
					}
					last = false
					if lines > n {
						for _, old := range files[:i] {
							old.Close()
						}
						_, err := f.Seek(pos+int64(stop), io.SeekStart)
						return files[i:], err
					}
				}
				stop = start
			}
			rest = block[:stop]
			if len(rest) > 1<<20 {
				rest = rest[:0] // no record is that long
			}
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return files, err
		}
	}
	return files, nil
}

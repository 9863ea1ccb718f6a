// SPDX-License-Identifier: Apache-2.0

package log

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// follow reads on from f, the newest file that was read (nil: there was none), as records come.
func (r *reader) follow(ctx context.Context, path string, f *os.File, wake *watch) error {
	opened := []*os.File{}
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	var until <-chan time.Time
	if !r.opt.Until.IsZero() {
		t := time.NewTimer(time.Until(r.opt.Until))
		defer t.Stop()
		until = t.C
	}
	done := r.opt.Done
	finish := false
	for {
		if f != nil {
			if err := r.drain(ctx, f); err != nil || r.past {
				return err
			}
		}
		next, err := successor(path, f)
		if err != nil {
			return err
		}
		if next != nil {
			// Whatever was written to f was written before it was renamed: once more, then it is complete.
			if f != nil {
				if err := r.drain(ctx, f); err != nil || r.past {
					return err
				}
			}
			for _, o := range opened {
				o.Close()
			}
			f, opened, r.line = next, []*os.File{next}, r.line[:0]
			continue
		}
		if finish {
			return nil
		}
		if err := r.idle(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-until:
			finish = true
		case <-done:
			finish, done = true, nil
		case _, ok := <-wake.C:
			if !ok {
				return wake.err
			}
		}
	}
}

// successor opens the file that follows f in time; nil: f is the newest. Where f is gone, rotated away, that
// is the oldest one there is.
func successor(path string, f *os.File) (*os.File, error) {
	var own os.FileInfo
	if f != nil {
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if now, err := os.Lstat(path); err == nil && os.SameFile(now, st) {
			return nil, nil
		}
		own = st
	}
	files, err := open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	at := 0
	for i, g := range files {
		if st, err := g.Stat(); err == nil && own != nil && os.SameFile(st, own) {
			at = i + 1
		}
	}
	var next *os.File
	for i, g := range files {
		if i == at {
			next = g
		} else {
			g.Close()
		}
	}
	return next, nil
}

// A watch says when a file in a directory changed, was made or renamed.
type watch struct {
	C   chan struct{} // closed when nothing more can come
	err error
	f   *os.File
}

func watchFile(path string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{C: make(chan struct{}, 1), f: os.NewFile(uintptr(fd), "inotify")}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), events); err != nil {
		w.f.Close()
		return nil, &fs.PathError{Op: "watch", Path: filepath.Dir(path), Err: err}
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := w.f.Read(buf); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					w.err = err
				}
				close(w.C)
				return
			}
			select {
			case w.C <- struct{}{}:
			default:
			}
		}
	}()
	return w, nil
}

func (w *watch) Close() { w.f.Close() }

// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"context"
	"io"
	"os"
	"path"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/layer"
)

// Put stores a blob; layout.Writer.Put is one.
type Put func(ctx context.Context, mediaType string, r io.Reader) (ocispec.Descriptor, error)

// Pack makes a layer archive of a directory in overlay form, and its blob if put is not nil. ok is false if
// nothing is in the directory: there is no layer. With clamp no file in the directory stays younger than the
// epoch, so that the directory is what unpacking its archive would give. root includes the directory's own
// entry.
func Pack(ctx context.Context, dir string, set Settings, put Put) (blob layer.Blob, ok bool, err error) {
	if empty, err := clamp(ctx, dir, set.Epoch); err != nil || empty {
		return blob, false, err
	}
	opts := layer.DiffOptions{Form: layer.Overlay{}, Epoch: &set.Epoch}
	if put == nil {
		z, err := layer.NewCompressor(io.Discard, layer.None, 0)
		if err != nil {
			return blob, false, err
		}
		if _, err := layer.Diff(ctx, z, dir, opts); err != nil {
			return blob, false, err
		}
		blob, err = z.Close()
		return blob, true, err
	}
	pr, pw := io.Pipe()
	z, err := layer.NewCompressor(pw, layer.Gzip, 0)
	if err != nil {
		return blob, false, err
	}
	done := make(chan error, 1)
	go func() {
		_, err := layer.Diff(ctx, z, dir, opts)
		if err == nil {
			blob, err = z.Close()
		}
		pw.CloseWithError(err)
		done <- err
	}()
	d, err := put(ctx, layer.Gzip.MediaType(), pr)
	pr.CloseWithError(err)
	if e := <-done; err == nil {
		err = e
	}
	if err != nil {
		return blob, false, err
	}
	blob.Descriptor = d
	return blob, true, nil
}

// clamp makes no file younger than the epoch, and says whether there is none.
func clamp(ctx context.Context, dir string, epoch time.Time) (empty bool, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	n, err := clampIn(ctx, os.NewFile(uintptr(fd), dir), "", epoch.Unix())
	return n == 0, err
}

// clampIn works on an open directory, which it closes.
func clampIn(ctx context.Context, f *os.File, at string, epoch int64) (n int, err error) {
	defer f.Close()
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	d := int(f.Fd())
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(d, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return 0, &os.PathError{Op: "stat", Path: path.Join(at, name), Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fd, err := unix.Openat(d, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return 0, &os.PathError{Op: "open", Path: path.Join(at, name), Err: err}
			}
			if _, err := clampIn(ctx, os.NewFile(uintptr(fd), name), path.Join(at, name), epoch); err != nil {
				return 0, err
			}
		}
		if st.Mtim.Sec > epoch || st.Mtim.Sec == epoch && st.Mtim.Nsec > 0 {
			t := unix.Timespec{Sec: epoch}
			if err := unix.UtimesNanoAt(d, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return 0, &os.PathError{Op: "set time", Path: path.Join(at, name), Err: err}
			}
		}
	}
	return len(names), nil
}

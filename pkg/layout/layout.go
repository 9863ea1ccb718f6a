// SPDX-License-Identifier: Apache-2.0

// Package layout is an OCI image layout on disk, safe between processes:
//
//	l, err := layout.Create(place.Images(root))
//	w, err := l.Begin()              // from here on, gc waits
//	defer w.Close()
//	d, err := w.PutJSON(ctx, ocispec.MediaTypeImageManifest, manifest)
//	err = w.Tag("docker.io/library/app:1", d)
//
// Nobody else joins a path inside an image layout. It is spec/layout.md in code; skopeo, umoci, buildah
// and crane read and write the same directories. It knows no registry and no image config.
package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// AnnotationPlatforms marks an index.json entry whose index is sparse: only these platforms (os/arch[/variant],
// separated by commas) are in the layout (spec/layout.md, Sparse indexes).
const AnnotationPlatforms = "dev.ctr.layout.platforms"

// ErrDigestMismatch says that a blob is not what its descriptor says.
var ErrDigestMismatch = descriptor.ErrDigestMismatch

// A Layout is an image layout. It holds no open files; any number of goroutines and processes may use it.
type Layout struct{ dir string }

// Open opens the image layout in dir. Without one, the error is fs.ErrNotExist.
func Open(dir string) (*Layout, error) {
	l := &Layout{dir: dir}
	data, err := l.read(ocispec.ImageLayoutFile, descriptor.MaxDocumentBytes)
	if err != nil {
		return nil, fmt.Errorf("image layout %s: %w", dir, err)
	}
	var v ocispec.ImageLayout
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("image layout %s: oci-layout: %w", dir, err)
	}
	if v.Version != ocispec.ImageLayoutVersion {
		return nil, fmt.Errorf("image layout %s: oci-layout: imageLayoutVersion %q, want %q", dir, v.Version, ocispec.ImageLayoutVersion)
	}
	return l, nil
}

// Create opens the image layout in dir, after making an empty one where there is none. A directory that
// holds other things is refused (fs.ErrExist).
func Create(dir string) (*Layout, error) {
	if l, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := atomicfile.LockPath(dir, true)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	if l, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		return l, err // somebody was faster
	}
	if err := onlyOurs(dir); err != nil {
		return nil, err
	}
	l := &Layout{dir: dir}
	if err := l.mkdir("blobs", "sha256"); err != nil {
		return nil, err
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	// oci-layout comes last: where it is, the rest is.
	for _, f := range []struct {
		name string
		v    any
	}{{ocispec.ImageIndexFile, index}, {ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}} {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			continue
		}
		data, err := json.Marshal(f.v)
		if err != nil {
			return nil, err
		}
		if err := l.replace(f.name, data); err != nil {
			return nil, fmt.Errorf("image layout %s: %w", dir, err)
		}
	}
	return Open(dir)
}

// onlyOurs refuses a directory with files that no half-made layout has.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch n := e.Name(); {
		case n == "blobs", n == ocispec.ImageIndexFile, n == partialDir, strings.HasPrefix(n, atomicfile.TempPrefix):
		default:
			return fault.Hint(fmt.Errorf("image layout %s: the directory holds %q and is no image layout: %w", dir, n, fs.ErrExist),
				"name a directory that is empty or does not exist yet")
		}
	}
	return nil
}

// Dir is the directory that the layout was opened by.
func (l *Layout) Dir() string { return l.dir }

// open opens a regular file below the layout without following any link, so that a layout from elsewhere
// leads neither out of itself nor into a FIFO.
func (l *Layout) open(rel string) (*os.File, error) {
	dir, err := unix.Open(l.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: l.dir, Err: err}
	}
	defer unix.Close(dir)
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	path := filepath.Join(l.dir, rel)
	for {
		fd, err := unix.Openat2(dir, rel, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err == unix.ELOOP {
			return nil, descriptor.Mismatch("open %s: a symbolic link, want a regular file", path)
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		f := os.NewFile(uintptr(fd), path)
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = descriptor.Mismatch("open %s: is %v, want a regular file", path, st.Mode().Type())
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
}

// mkdir makes the directory of the parts, one by one, with the layout's owner and mode.
func (l *Layout) mkdir(parts ...string) error {
	path := l.dir
	for _, p := range parts {
		path = filepath.Join(path, p)
		err := os.Mkdir(path, 0o755)
		if errors.Is(err, fs.ErrExist) {
			st, err := os.Lstat(path)
			if err == nil && !st.IsDir() {
				err = descriptor.Mismatch("%s: is %v, want a directory", path, st.Mode().Type())
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(l.dir, &st); err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
		if err := os.Chmod(path, fs.FileMode(st.Mode&0o777)); err != nil {
			return err
		}
		if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}

// adopt gives a new file the owner of the layout and its permissions without the x bits, so that "sudo
// ctr-fetch" does not leave files that the layout's owner cannot use.
func (l *Layout) adopt(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Stat(l.dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: l.dir, Err: err}
	}
	if os.Geteuid() == 0 {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(fs.FileMode(st.Mode & 0o666))
}

// replace replaces a file in the top of the layout.
func (l *Layout) replace(name string, data []byte) error {
	f, err := atomicfile.Create(filepath.Join(l.dir, name), 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := l.adopt(f.File); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

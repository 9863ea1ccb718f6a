// SPDX-License-Identifier: Apache-2.0

// Package unpack makes a bundle of an image in a layout: the one place where the world of images and that of
// runtimes meet.
//
//	err := unpack.Unpack(ctx, l, img, "web", unpack.Options{Root: root, Name: "docker.io/library/nginx:1.27"})
//
// The bundle's root filesystem has one of three forms. [Overlay]: the layers, unpacked once for all bundles,
// and a directory upper/ for what the container writes; ctr-run mounts them inside the container's own mount
// namespace, the host sees no mount. [Mount]: the same, mounted on rootfs/ for any other runtime. [Copy]: plain
// files in rootfs/.
//
// A bundle is made whole or not at all. While it is being made it holds a directory .unpack, which its maker has
// locked; one that nobody has locked belongs to a dead process, and the next Unpack removes what that one left.
package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/rootfd"
	"github.com/ctr-tools/ctr/pkg/snapshot"
)

// A Form is a form of the root filesystem: Overlay, Mount or Copy.
type Form interface {
	// prepare makes the root filesystem; what it must undo on a later error goes to m.undo.
	prepare(ctx context.Context, m *maker) error
}

// Overlay leaves the mount to ctr-run.
type Overlay struct{}

// Mount mounts on rootfs/, on the host, until umount(8) or a reboot.
type Mount struct{}

// Copy makes plain files in rootfs/.
type Copy struct{}

// Options for Unpack.
type Options struct {
	Root    string // directory of what lasts; "": place.Root()
	Form    Form   // nil: Overlay{}
	Name    string // of the image, kept in image.json
	Runtime image.RuntimeOptions
	Patch   []byte          // JSON merge patch for config.json, applied last; nil: none
	Limits  snapshot.Limits // of each layer
	// Wrap, where set, wraps the reader of a layer's blob (progress).
	Wrap func(digest string, sizeBytes int64, r io.Reader) io.ReadCloser
}

// Unpack makes the bundle dir, which must not be one, of the image img in l. It fails with fs.ErrExist where
// there is a bundle, and with fault.ErrBusy where another process is making it.
func Unpack(ctx context.Context, l *layout.Layout, img *image.Image, dir string, o Options) (err error) {
	if o.Root == "" {
		o.Root = place.Root()
	}
	if o.Form == nil {
		o.Form = Overlay{}
	}
	b, err := bundle.At(dir)
	if err != nil {
		return err
	}
	m := &maker{o: o, b: b, img: img}
	for i, d := range img.Manifest.Layers {
		m.layers = append(m.layers, snapshot.Layer{
			DiffID: img.Config.RootFS.DiffIDs[i], MediaType: d.MediaType,
			Open: func(ctx context.Context) (io.ReadCloser, error) {
				r, err := l.Fetch(ctx, d)
				if err != nil || o.Wrap == nil {
					return r, err
				}
				return wrapped{o.Wrap(d.Digest.String(), d.Size, r), r}, nil
			},
		})
	}
	defer func() {
		if err != nil {
			m.runUndo()
			err = fmt.Errorf("unpack into %s: %w", dir, err)
		}
	}()
	if err := m.claim(); err != nil {
		return err
	}
	store, err := snapshot.Open(place.Snapshots(o.Root))
	if err != nil {
		return err
	}
	if m.session, err = store.Begin(); err != nil {
		return err
	}
	defer m.session.Close()
	if err := m.names("rootfs", 0o755); err != nil {
		return err
	}
	if err := o.Form.prepare(ctx, m); err != nil {
		return err
	}
	if err := m.write(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return m.release()
}

type wrapped struct {
	io.ReadCloser
	blob io.Closer
}

func (w wrapped) Close() error { return errors.Join(w.ReadCloser.Close(), w.blob.Close()) }

// A maker is one Unpack at work.
type maker struct {
	o       Options
	b       *bundle.Bundle
	img     *image.Image
	layers  []snapshot.Layer
	session *snapshot.Session
	overlay *bundle.Overlay // for the annotation; nil: none
	spec    *specs.Spec
	undo    []func()
	lock    *os.File
}

func (m *maker) runUndo() {
	for i := len(m.undo) - 1; i >= 0; i-- {
		m.undo[i]()
	}
}

// claim makes the bundle directory ours, for its owner only: the image's set-user-ID files must not be within
// reach of other users of the host.
func (m *maker) claim() error {
	dir := m.b.Dir()
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		m.undo = append(m.undo, func() { os.Remove(dir) })
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	exists := func(name string) error {
		return fault.Hint(fmt.Errorf("%s is there: %w", name, fs.ErrExist), "unpack into another directory, or remove this one first")
	}
	claimed := m.b.Path(bundle.UnpackDir)
	if err := os.Mkdir(claimed, 0o700); errors.Is(err, fs.ErrExist) {
		if err := m.lockClaim(claimed); err != nil {
			return err
		}
		if err := m.clean(); err != nil { // its maker is dead
			return err
		}
	} else if err != nil {
		return err
	} else {
		// Whoever finds .unpack unlocked takes it for a dead one's: between mkdir and flock there is nothing to lose.
		if err := m.lockClaim(claimed); err != nil {
			return err
		}
		m.undo = append(m.undo, func() { os.Remove(claimed) })
		for _, name := range []string{bundle.ConfigFile, bundle.ImageFile, bundle.UpperDir, bundle.WorkDir} {
			if _, err := os.Lstat(m.b.Path(name)); err == nil {
				return exists(name)
			}
		}
		if names, err := os.ReadDir(m.b.Path(bundle.RootfsDir)); len(names) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return exists(bundle.RootfsDir)
		}
	}
	m.undo = append(m.undo, func() { os.RemoveAll(claimed) })
	return os.Chmod(dir, 0o700)
}

func (m *maker) lockClaim(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fault.As(fault.ErrBusy, errors.New("another process is unpacking here"))
	}
	// A maker that just finished has removed the directory that it had locked.
	var have, named unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &have); err != nil || unix.Lstat(path, &named) != nil || have.Ino != named.Ino {
		f.Close()
		return fault.As(fault.ErrBusy, errors.New("another process was unpacking here"))
	}
	m.lock = f
	return nil
}

// clean removes what a dead Unpack left.
func (m *maker) clean() error {
	for _, name := range []string{bundle.ConfigFile, bundle.ImageFile} {
		if err := m.b.Remove(name); err != nil {
			return err
		}
	}
	unix.Unmount(m.b.Path(bundle.RootfsDir), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	for _, name := range []string{bundle.UpperDir, bundle.WorkDir, bundle.RootfsDir} {
		if err := os.RemoveAll(m.b.Path(name)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(m.b.Path(bundle.UnpackDir))
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(m.b.Path(bundle.UnpackDir), e.Name())))
	}
	return err
}

// names makes a directory of the bundle.
func (m *maker) names(name string, perm fs.FileMode) error {
	path := m.b.Path(name)
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	m.undo = append(m.undo, func() { os.RemoveAll(path) })
	return os.Chmod(path, perm) // whatever the umask
}

// release ends the making: the bundle is whole.
func (m *maker) release() error {
	if err := os.RemoveAll(m.b.Path(bundle.UnpackDir)); err != nil {
		return err
	}
	return m.lock.Close()
}

// config makes the runtime config; accounts holds the image's account files.
func (m *maker) config(accounts *rootfd.Root) error {
	if m.o.Runtime.Hostname == "" {
		m.o.Runtime.Hostname = hostname(filepath.Base(m.b.Dir()))
	}
	spec, err := image.RuntimeSpec(&m.img.Config, accounts, m.o.Runtime)
	if err != nil {
		return err
	}
	m.spec = spec
	return nil
}

// hostname makes a host name of a file name; "" if nothing fit remains.
func hostname(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == '_', r == '.':
			return '-'
		}
		return -1
	}, s)
	return strings.Trim(s[:min(len(s), 63)], "-")
}

// write writes the bundle's documents.
func (m *maker) write() error {
	if m.overlay != nil {
		data, err := json.Marshal(m.overlay)
		if err != nil {
			return err
		}
		m.spec.Annotations[bundle.AnnotationOverlay] = string(data)
	}
	m.undo = append(m.undo, func() { m.b.Remove(bundle.ConfigFile); m.b.Remove(bundle.ImageFile) })
	if _, err := bundle.Create(m.b.Dir(), m.spec); err != nil {
		return err
	}
	if m.o.Patch != nil {
		err := m.b.Rewrite(func(config []byte) ([]byte, error) { return bundle.MergePatch(config, m.o.Patch) })
		if err != nil {
			return fmt.Errorf("patch for config.json: %w", err)
		}
	}
	return m.b.WriteJSON(bundle.ImageFile, bundle.Image{
		Name: m.o.Name, Digest: m.img.Descriptor.Digest.String(), Index: m.img.Index.String(),
		Platform: image.FormatPlatform(m.img.Platform()), Config: m.img.RawConfig,
	})
}

// epoch is the time of directories that no layer names.
func epoch() time.Time { return time.Unix(0, 0) }

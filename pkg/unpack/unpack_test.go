// SPDX-License-Identifier: Apache-2.0

package unpack_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/unpack"
)

// testImage puts an image of the layers into a new layout.
func testImage(t testing.TB, config ocispec.ImageConfig, layers ...[]*tar.Header) (*layout.Layout, *image.Image) {
	t.Helper()
	ctx := context.Background()
	l, err := layout.Create(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cfg := ocispec.Image{Config: config, Platform: image.DefaultPlatform(), RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, headers := range layers {
		var plain, blob bytes.Buffer
		z := gzip.NewWriter(&blob)
		a := tar.NewWriter(io.MultiWriter(&plain, z))
		for _, h := range headers {
			h.ModTime, h.Format = time.Unix(1000000000, 0), tar.FormatPAX
			data := h.Uname // content, in these tests
			h.Uname, h.Size = "", int64(len(data))
			if err := a.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(a, data)
			h.Uname = data
		}
		a.Close()
		z.Close()
		d, err := w.Put(ctx, ocispec.MediaTypeImageLayerGzip, &blob)
		if err != nil {
			t.Fatal(err)
		}
		m.Layers = append(m.Layers, d)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(plain.Bytes()))
	}
	if m.Config, err = w.PutJSON(ctx, ocispec.MediaTypeImageConfig, cfg); err != nil {
		t.Fatal(err)
	}
	d, err := w.PutJSON(ctx, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Load(ctx, l, d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, img
}

func dir(name string, mode int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}
}
func file(name, data string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Uname: data}
}
func link(name, to string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}
}

// tree lists a root filesystem: names, modes, owners, targets, contents.
func tree(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		fmt.Fprintf(&b, "%s %o %d:%d %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		if e.Type().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", data)
		}
		if e.Type()&fs.ModeSymlink != 0 {
			to, _ := os.Readlink(p)
			fmt.Fprintf(&b, " -> %s", to)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func mounts(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The three forms show the same files. Account files and the working directory are found through links that
// lead from one layer to another, and the working directory is made where the links say.
func TestForms(t *testing.T) {
	clitest.Root(t)
	l, img := testImage(t, ocispec.ImageConfig{User: "app", WorkingDir: "/home/new/dir"},
		[]*tar.Header{dir("./", 0o751), dir("etc/", 0o755), link("etc/passwd", "../real/passwd"), file("etc/group", "app:x:8:\n"), file("gone", "x"), link("home", "/srv")},
		[]*tar.Header{dir("real/", 0o755), link("real/passwd", "/etc/../real/deep"), file("etc/group", "app:x:9:\nmore:x:10:app\n"), file(".wh.gone", "")},
		[]*tar.Header{file("real/deep", "app:x:7:9::/home/app:\n"), dir("srv/", 0o750)},
	)
	root := t.TempDir()
	want := ""
	for name, form := range map[string]unpack.Form{"copy": unpack.Copy{}, "mount": unpack.Mount{}, "overlay": unpack.Overlay{}} {
		b := filepath.Join(t.TempDir(), "sub", "bundle")
		if err := unpack.Unpack(context.Background(), l, img, b, unpack.Options{Root: root, Form: form, Name: "n"}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		bu, err := bundle.Open(b)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := bu.Config()
		if err != nil {
			t.Fatal(err)
		}
		if u := spec.Process.User; u.UID != 7 || u.GID != 9 || fmt.Sprint(u.AdditionalGids) != "[9 10]" || spec.Process.Cwd != "/home/new/dir" {
			t.Errorf("%s: user %+v, cwd %s", name, u, spec.Process.Cwd)
		}
		rootfs := bu.Path(bundle.RootfsDir)
		if name == "overlay" {
			var o bundle.Overlay
			if err := json.Unmarshal([]byte(spec.Annotations[bundle.AnnotationOverlay]), &o); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(mounts(t), b) {
				t.Error("overlay: there is a mount on the host")
			}
			var lower []string
			for _, p := range o.Lower {
				lower = append(lower, bu.Resolve(p))
			}
			opts := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + bu.Resolve(o.Upper) + ",workdir=" + bu.Resolve(o.Work) + "," + strings.Join(o.Options, ",")
			if err := unix.Mount("overlay", rootfs, "overlay", 0, opts); err != nil {
				t.Fatal(err)
			}
		}
		if name != "copy" {
			defer unix.Unmount(rootfs, unix.MNT_DETACH)
		}
		got := tree(t, rootfs)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%s:\n%s\nother form:\n%s", name, got, want)
		}
		for _, line := range []string{". 40751 0:0 1000000000\n", "srv 40750 ", "srv/new/dir 40755 0:0 0\n"} {
			if !strings.Contains(got, line) {
				t.Errorf("%s: no %q in\n%s", name, line, got)
			}
		}
	}
}

// A bundle below the same root as the layers names them relatively: the root can be moved.
func TestRelocatable(t *testing.T) {
	clitest.Root(t)
	l, img := testImage(t, ocispec.ImageConfig{}, []*tar.Header{file("f", "f")})
	root := t.TempDir()
	b := filepath.Join(root, "projects", "p", "web")
	if err := unpack.Unpack(context.Background(), l, img, b, unpack.Options{Root: root}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(b, bundle.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), root) || !strings.Contains(string(data), "../../../snapshots/") {
		t.Errorf("config.json holds the root %s", root)
	}
}

func TestOneOfMany(t *testing.T) {
	clitest.Root(t)
	l, img := testImage(t, ocispec.ImageConfig{}, []*tar.Header{file("f", "f")}, []*tar.Header{file("g", "g")})
	root, b := t.TempDir(), filepath.Join(t.TempDir(), "bundle")
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			err := unpack.Unpack(context.Background(), l, img, b, unpack.Options{Root: root})
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, fs.ErrExist), errors.Is(err, fault.ErrBusy):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times, refused %d times, want once and 15 times", made.Load(), refused.Load())
	}
	if _, err := bundle.Open(b); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(b, bundle.UnpackDir)); err == nil {
		t.Error(".unpack is left")
	}
}

// An error at any point leaves neither bundle nor mount, and the image's hostile files lead nowhere.
func TestRefused(t *testing.T) {
	clitest.Root(t)
	for name, c := range map[string]struct {
		config ocispec.ImageConfig
		layer  []*tar.Header
		patch  string
	}{
		"patch":              {ocispec.ImageConfig{}, []*tar.Header{file("f", "f")}, "{"},
		"patch that is none": {ocispec.ImageConfig{}, []*tar.Header{file("f", "f")}, `{"process":7}`},
		"no such user":       {ocispec.ImageConfig{User: "app"}, []*tar.Header{file("f", "f")}, ""},
		"passwd a FIFO":      {ocispec.ImageConfig{User: "app"}, []*tar.Header{{Name: "etc/passwd", Typeflag: tar.TypeFifo}}, ""},
		"passwd a device":    {ocispec.ImageConfig{User: "app"}, []*tar.Header{{Name: "etc/passwd", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}}, ""},
		"passwd huge":        {ocispec.ImageConfig{User: "app"}, []*tar.Header{file("etc/passwd", strings.Repeat("app:x:1:1::/:\n", 100000))}, ""},
		"passwd of the host": {ocispec.ImageConfig{User: "daemon"}, []*tar.Header{link("etc/passwd", "/../../../../../etc/passwd")}, ""},
		"passwd in proc":     {ocispec.ImageConfig{User: "daemon"}, []*tar.Header{link("etc", "/proc/1/root/etc")}, ""},
		"workdir a file":     {ocispec.ImageConfig{WorkingDir: "/f/x"}, []*tar.Header{file("f", "f")}, ""},
		"workdir a circle":   {ocispec.ImageConfig{WorkingDir: "/l/x"}, []*tar.Header{link("l", "l")}, ""},
	} {
		l, img := testImage(t, c.config, c.layer)
		for _, form := range []unpack.Form{unpack.Overlay{}, unpack.Mount{}, unpack.Copy{}} {
			top := t.TempDir()
			o := unpack.Options{Root: filepath.Join(top, "root"), Form: form}
			if c.patch != "" {
				o.Patch = []byte(c.patch)
			}
			if err := unpack.Unpack(context.Background(), l, img, filepath.Join(top, "b"), o); err == nil {
				t.Errorf("%s, %T: no error", name, form)
			}
			if _, err := os.Lstat(filepath.Join(top, "b")); err == nil {
				t.Errorf("%s, %T: the bundle is left", name, form)
			}
			if strings.Contains(mounts(t), top) {
				t.Errorf("%s, %T: a mount is left", name, form)
			}
		}
	}
	// A working directory through a link out of the tree is made inside of it.
	l, img := testImage(t, ocispec.ImageConfig{WorkingDir: "/out/dir"}, []*tar.Header{link("out", "../../../../escaped")})
	top := t.TempDir()
	if err := unpack.Unpack(context.Background(), l, img, filepath.Join(top, "b"), unpack.Options{Root: top, Form: unpack.Copy{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "b", "rootfs", "escaped", "dir")); err != nil {
		t.Error(err)
	}
}

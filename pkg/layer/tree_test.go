// SPDX-License-Identifier: Apache-2.0

package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	umoci "github.com/opencontainers/umoci/oci/layer"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/layer"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// An ent is one archive entry; the zero type is a regular file.
type ent struct {
	name, link, data string
	kind             byte
	mode             int64
	uid, gid         int
	major, minor     int64
	xattrs           map[string]string
	at               int64 // seconds; 0: 1000000000
}

func dirEnt(name string, mode int64) ent { return ent{name: name, kind: tar.TypeDir, mode: mode} }
func file(name, data string) ent         { return ent{name: name, data: data, mode: 0o644} }
func sym(name, to string) ent            { return ent{name: name, kind: tar.TypeSymlink, link: to, mode: 0o777} }
func hard(name, to string) ent           { return ent{name: name, kind: tar.TypeLink, link: to} }
func gone(name string) ent {
	d, b := filepath.Split(name)
	return ent{name: d + ".wh." + b}
}
func opaque(dir string) ent { return ent{name: filepath.Join(dir, ".wh..wh..opq")} }

func archive(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range ents {
		h := &tar.Header{
			Format: tar.FormatPAX, Name: e.name, Linkname: e.link, Mode: e.mode, Uid: e.uid, Gid: e.gid,
			Size: int64(len(e.data)), Typeflag: e.kind, Devmajor: e.major, Devminor: e.minor, ModTime: time.Unix(max(e.at, 1), 0),
		}
		if e.at == 0 {
			h.ModTime = time.Unix(1000000000, 500)
		}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		for k, v := range e.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// describe says all about a tree but its inode numbers: what two unpackers have to agree on.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	type id struct{ dev, ino uint64 }
	all, links := map[string]string{}, map[id][]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		d := fmt.Sprintf("mode=%o owner=%d:%d mtime=%d.%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			d += fmt.Sprintf(" size=%d sum=%x", len(data), sha256.Sum256(data))
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			d += " to=" + to
		case unix.S_IFCHR, unix.S_IFBLK:
			d += fmt.Sprintf(" dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			links[id{st.Dev, st.Ino}] = append(links[id{st.Dev, st.Ino}], rel)
		}
		buf := make([]byte, 64<<10)
		if n, err := unix.Llistxattr(p, buf); err == nil && n > 0 {
			names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
			sort.Strings(names)
			for _, name := range names {
				if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
					continue
				}
				v := make([]byte, 64<<10)
				n, err := unix.Lgetxattr(p, name, v)
				if err != nil {
					return err
				}
				d += fmt.Sprintf(" %s=%x", name, v[:n])
			}
		}
		all[rel] = d
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range links {
		if len(names) > 1 {
			sort.Strings(names)
			for _, n := range names {
				all[n] += " links=" + strings.Join(names, ",")
			}
		}
	}
	return all
}

func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	keys := map[string]bool{}
	for k := range got {
		keys[k] = true
	}
	for k := range want {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if got[k] != want[k] {
			t.Errorf("%s: %q:\n got %s\nwant %s", what, k, got[k], want[k])
		}
	}
}

func apply(t testing.TB, data []byte, dir string, o layer.Options) (layer.Result, error) {
	t.Helper()
	root, err := rootfd.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return layer.Apply(context.Background(), bytes.NewReader(data), root, o)
}

// rootDir makes an empty tree whose root directory is always the same.
func rootDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, err := range []error{os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755), os.Chtimes(dir, time.Unix(0, 0), time.Unix(0, 0))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func plain(t testing.TB, layers [][]byte) string {
	t.Helper()
	dir := rootDir(t)
	for i, l := range layers {
		if _, err := apply(t, l, dir, layer.Options{Form: layer.Plain{}}); err != nil {
			t.Fatalf("layer %d, plain: %v", i+1, err)
		}
	}
	return dir
}

// overlaid unpacks the layers side by side and mounts them.
func overlaid(t testing.TB, layers [][]byte) string {
	t.Helper()
	var stack []string // topmost first
	root := ""
	for i, l := range layers {
		dir := rootDir(t)
		var open []*rootfd.Root
		res, err := apply(t, l, dir, layer.Options{Parents: func(context.Context) ([]*rootfd.Root, error) {
			for _, d := range stack {
				r, err := rootfd.Open(d)
				if err != nil {
					return nil, err
				}
				open = append(open, r)
			}
			return open, nil
		}})
		for _, r := range open {
			r.Close()
		}
		if err != nil {
			t.Fatalf("layer %d, overlay: %v", i+1, err)
		}
		if res.OpaqueRoot {
			stack = nil
		}
		if res.NamesRoot {
			root = dir
		}
		stack = append([]string{dir}, stack...)
	}
	upper, work, target := rootDir(t), t.TempDir(), t.TempDir()
	if root != "" {
		if err := layer.CopyMeta(root, upper); err != nil {
			t.Fatal(err)
		}
	}
	opts := "lowerdir=" + strings.Join(stack, ":") + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", target, "overlay", 0, opts); err != nil {
		t.Skipf("SKIP: cannot mount an overlay here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	return target
}

func byUmoci(t testing.TB, layers [][]byte) string {
	t.Helper()
	dir := rootDir(t)
	for i, l := range layers {
		if err := umoci.UnpackLayer(dir, bytes.NewReader(l), nil); err != nil {
			t.Fatalf("layer %d, umoci: %v", i+1, err)
		}
	}
	return dir
}

// images are stacks of layers that unpackers get wrong.
func images(t testing.TB) map[string][][]byte {
	long := strings.Repeat("n", 255)
	base := archive(t,
		dirEnt("./", 0o755), dirEnt("etc/", 0o750), file("etc/passwd", "root:x:0:0::/root:/bin/sh\n"), file("etc/gone", "x"),
		dirEnt("usr/", 0o755), dirEnt("usr/lib/", 0o2775), file("usr/lib/libc.so", "elf"), sym("lib", "usr/lib"), sym("abs", "/usr"),
		dirEnt("d/", 0o700), dirEnt("d/sub/", 0o711), file("d/sub/a", "a"), file("d/b", "b"), dirEnt("closed/", 0), file("closed/in", "1"),
		file("h1", "linked"), hard("h2", "h1"), hard("usr/h3", "h2"), file("tochange", "file"), dirEnt("todir/", 0o755), file("todir/x", "x"),
		ent{name: "su", data: "su", mode: 0o4755, uid: 12, gid: 34}, ent{name: "null", kind: tar.TypeChar, mode: 0o666, major: 1, minor: 3},
		ent{name: "blk", kind: tar.TypeBlock, mode: 0o660, major: 259, minor: 70000, gid: 6}, ent{name: "pipe", kind: tar.TypeFifo, mode: 0o622},
		ent{name: "big-id", data: "1", mode: 0o600, uid: 4294967294, gid: 4294967294},
	)
	return map[string][][]byte{
		"one layer": {base},
		"implied directories and links on the way": {base, archive(t,
			file("etc/new", "n"), file("lib/new.so", "n"), file("abs/lib/other.so", "o"), file("closed/more", "m"), file("made/by/nobody", "x"))},
		"whiteouts": {base, archive(t,
			gone("etc/gone"), gone("d/sub"), gone("nothing"), gone("lib/libc.so"), gone("h1"), gone("missing/dir/x"))},
		"whiteouts in directories of their own": {base, archive(t, dirEnt("fresh/", 0o755), gone("fresh/x"), file("fresh/y", "y"))},
		"opaque":                                {base, archive(t, dirEnt("d/", 0o755), opaque("d"), file("d/new", "n"), dirEnt("d/sub/", 0o755), file("d/sub/new", "n"))},
		"opaque last":                           {base, archive(t, file("d/new", "n"), file("d/sub/new", "n"), opaque("d"))},
		"opaque, implied":                       {base, archive(t, opaque("d/sub")), archive(t, file("d/sub/c", "c"))},
		"opaque root":                           {base, archive(t, opaque("."), file("only", "me")), archive(t, file("etc/x", "x"))},
		"whiteout and new, both orders": {base, archive(t,
			gone("d"), dirEnt("d/", 0o755), file("d/n", "n"), dirEnt("todir/", 0o700), file("todir/n", "n"), gone("todir"), gone("tochange"), file("tochange", "again"))},
		"type changes": {base, archive(t,
			dirEnt("tochange/", 0o755), file("tochange/in", "in"), file("todir", "file"), dirEnt("lib/", 0o755), file("lib/x", "x"), sym("d", "usr")),
			archive(t, file("d/through", "t"), dirEnt("todir/", 0o755), file("todir/y", "y"))},
		"type changes in one layer": {base, archive(t,
			file("d", "1"), dirEnt("d/", 0o755), file("d/z", "z"), file("dup", "one"), file("dup", "two"), sym("dup2", "x"), file("dup2", "file"))},
		"hard links into layers below": {base, archive(t, hard("h4", "h1"), hard("d/h5", "lib/libc.so"), hard("l2", "lib"), hard("n2", "null"))},
		"hard links, names gone":       {base, archive(t, gone("h2"), hard("h4", "h1"))},
		"hard links, names replaced":   {base, archive(t, hard("h4", "h1"), file("usr/h3", "mine"))},
		"metadata of directories":      {base, archive(t, ent{name: "etc", kind: tar.TypeDir, mode: 0o1777, uid: 5, gid: 6, xattrs: map[string]string{"user.a": "b"}}), archive(t, file("etc/z", "z"))},
		"attributes": {archive(t,
			ent{name: "cap", data: "x", mode: 0o755, uid: 1, xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
			ent{name: "many", data: "x", mode: 0o444, xattrs: map[string]string{"user.one": "\x00\xff", "user.two": "", "trusted.three": "3"}},
			ent{name: "dir", kind: tar.TypeDir, mode: 0o755, xattrs: map[string]string{"user.d": "d"}},
			ent{name: "link", kind: tar.TypeSymlink, link: "many", xattrs: map[string]string{"trusted.l": "l"}})},
		"names": {archive(t, file(long, "long"), dirEnt("dir.with.dots/", 0o755),
			file(strings.Repeat("deep/", 100)+"f", "f"), file("a\xff\xfeb", "raw"), file("new\nline", "nl"), file("sp ace\\", "x"),
			sym("longlink", strings.Repeat("t/", 1000)), file("./dot/../dotdot", "x"), file("/absolute", "x"), file("../../climb", "x"), file("wh..wh.", "x"))},
		"deep, again": {archive(t, file(strings.Repeat("deep/", 100)+"f", "f")), archive(t, file(strings.Repeat("deep/", 100)+"g", "g"), gone(strings.Repeat("deep/", 100)+"f"))},
		"empty":       {archive(t), archive(t, file("f", "f")), nil},
		"sparse":      {archive(t, file("holes", strings.Repeat("\x00", 1<<20)+"end"+strings.Repeat("\x00", 300000)), file("allzero", strings.Repeat("\x00", 200001)))},
		"three layers": {base, archive(t, gone("d"), file("etc/x", "1")), archive(t, file("d/again", "2"), gone("etc/x")),
			archive(t, hard("d/hl", "usr/h3"), file("etc/x", "3"), gone("d/again"))},
	}
}

// umociKnows leaves out what umoci gets wrong: it gives directories that no layer names the time of day, and loses
// empty attributes.
func umociKnows(tree map[string]string) map[string]string {
	for k, v := range tree {
		v = strings.Replace(v, " user.two=", "", 1)
		if strings.HasPrefix(v, "mode=4") {
			v, _, _ = strings.Cut(v, " mtime")
		}
		tree[k] = v
	}
	return tree
}

func TestFormsAgree(t *testing.T) {
	clitest.Root(t)
	for name, layers := range images(t) {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) { // a comma in a path ends a mount option
			want := describe(t, plain(t, layers))
			same(t, "overlay", describe(t, overlaid(t, layers)), want)
			switch name {
			case "opaque last", "sparse":
				// umoci drops what stands before an opaque mark; sparse files are slow there.
				return
			}
			same(t, "umoci", umociKnows(describe(t, byUmoci(t, layers))), umociKnows(want))
		})
	}
}

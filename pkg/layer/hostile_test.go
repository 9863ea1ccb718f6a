// SPDX-License-Identifier: Apache-2.0

package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/layer"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// den makes a directory with a canary tree and, beside it, an empty tree to unpack into, and returns a check that
// nothing but the latter changed.
func den(t testing.TB) (tree string, check func()) {
	t.Helper()
	top := t.TempDir()
	canary := filepath.Join(top, "canary")
	tree = filepath.Join(top, "tree")
	for _, err := range []error{
		os.Mkdir(canary, 0o700), os.Mkdir(tree, 0o755),
		os.WriteFile(filepath.Join(canary, "secret"), []byte("secret"), 0o600), os.Mkdir(filepath.Join(canary, "dir"), 0o700),
		os.WriteFile(filepath.Join(top, "file"), []byte("file"), 0o600),
		os.Chtimes(top, time.Unix(5, 0), time.Unix(5, 0)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	look := func() map[string]string {
		all := describe(t, canary)
		entries, err := os.ReadDir(top)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all["../"+e.Name()] = e.Type().String()
		}
		data, _ := os.ReadFile(filepath.Join(top, "file"))
		all["../file"] += string(data)
		return all
	}
	before := look()
	return tree, func() {
		t.Helper()
		same(t, "outside of the tree", look(), before)
	}
}

// rawEntry is a header that archive/tar would not write.
func rawEntry(edit func(block []byte)) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Format: tar.FormatGNU, Name: "raw", Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(1, 0)})
	h := b.Bytes()[:512]
	edit(h)
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(h[:512:512], make([]byte, 1024)...)
}

func zip(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

func TestHostile(t *testing.T) {
	clitest.Root(t)
	long := strings.Repeat("x", 256)
	for name, c := range map[string]struct {
		data   []byte
		refuse bool // else confine
	}{
		"climbing names":                {archive(t, file("../secret", "x"), file("a/../../../canary/secret", "x"), file("/../canary/secret", "x")), false},
		"absolute link, then write":     {archive(t, sym("x", "/canary"), file("x/secret", "pwned"), file("x/new", "pwned")), false},
		"climbing link, then write":     {archive(t, sym("x", "../canary"), file("x/secret", "pwned"), sym("y", "../../../../../canary/dir"), file("y/f", "p")), false},
		"link to a link out":            {archive(t, sym("a", "b/../.."), sym("b", ".."), file("a/canary/secret", "x")), false},
		"proc link":                     {archive(t, sym("x", "/proc/self/cwd"), file("x/new", "x")), false},
		"hard link out":                 {archive(t, hard("h", "../canary/secret")), true},
		"hard link, absolute":           {archive(t, hard("h", "/etc/passwd")), true},
		"hard link through a link":      {archive(t, sym("x", "/canary"), hard("h", "x/secret")), true},
		"hard link to a link, write":    {archive(t, sym("x", "../canary/secret"), hard("h", "x"), file("h", "pwned")), false},
		"hard link to itself":           {archive(t, file("h", "1"), hard("h", "h")), true},
		"hard link to what it replaces": {archive(t, dirEnt("d", 0o755), file("d/f", "1"), hard("d", "d/f")), true},
		"hard link to a directory":      {archive(t, dirEnt("d", 0o755), hard("h", "d")), true},
		"hard link to the root":         {archive(t, hard("h", "/")), true},
		"hard link to nothing":          {archive(t, hard("h", "nothing")), true},
		"hard link, empty":              {archive(t, hard("h", "")), true},
		"whiteout through a link":       {archive(t, sym("x", "../canary"), gone("x/secret"), gone("x/dir")), false},
		"opaque through a link":         {archive(t, sym("x", ".."), opaque("x"), opaque("x/canary")), false},
		"whiteout of no name":           {archive(t, file(".wh.", "")), true},
		"whiteout of dot":               {archive(t, file(".wh..", "")), true},
		"whiteout of dot dot":           {archive(t, file("a/.wh...", "")), true},
		"file below a whiteout's name":  {archive(t, file(".wh.x/y", "")), true},
		"aufs metadata":                 {archive(t, file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", "x")), false},
		"root becomes a link":           {archive(t, sym("./", "../canary"), file("secret", "x")), true},
		"root becomes a link, dot":      {archive(t, sym(".", "/canary")), true},
		"root becomes a link, climbed":  {archive(t, sym("a/..", "/canary")), true},
		"root becomes a file":           {archive(t, file(".", "x")), true},
		"root becomes a hard link":      {archive(t, hard(".", "../canary")), true},
		"mode through a link":           {archive(t, sym("x", "../canary"), ent{name: "x", kind: tar.TypeLink, link: "x", mode: 0o777}), true},
		"directory over a link":         {archive(t, sym("x", "../canary"), ent{name: "x/", kind: tar.TypeDir, mode: 0o777, uid: 9}, file("x/secret", "x")), false},
		"fifo in the way":               {archive(t, ent{name: "p", kind: tar.TypeFifo}, file("p", "x"), ent{name: "q", kind: tar.TypeFifo}), false},
		"file below a fifo":             {archive(t, ent{name: "p", kind: tar.TypeFifo}, file("p/x", "x")), true},
		"file below a file":             {archive(t, file("p", "x"), file("p/x", "x")), true},
		"device in the way":             {archive(t, ent{name: "z", kind: tar.TypeChar, major: 1, minor: 3}, file("z", "data")), false},
		"whiteout as a device":          {archive(t, ent{name: "z", kind: tar.TypeChar}), true},
		"device out of range":           {archive(t, ent{name: "z", kind: tar.TypeChar, major: 1 << 20, minor: 3}), true},
		"links in a circle":             {archive(t, sym("a", "b"), sym("b", "a"), file("a/x", "x")), true},
		"links that grow":               {archive(t, sym("a", "a/a"), file("a/x", "x")), true},
		"component too long":            {archive(t, file(long, "x")), true},
		"name of 5,000 bytes":           {archive(t, file(strings.Repeat(long[:249]+"/", 20)+"x", "x")), true},
		"link target too long":          {archive(t, sym("l", strings.Repeat("x", 5000))), true},
		"link to the empty name":        {archive(t, sym("l", "")), true},
		"uid of -1":                     {archive(t, ent{name: "f", uid: 4294967295}), true},
		"uid that wraps to 0":           {archive(t, ent{name: "f", uid: 1 << 32}), true},
		"negative uid":                  {rawEntry(func(h []byte) { copy(h[108:116], "\xff\xff\xff\xff\xff\xff\xff\xff") }), true},
		"gid too large":                 {archive(t, ent{name: "f", gid: 1 << 40}), true},
		"unknown type":                  {rawEntry(func(h []byte) { h[156] = 'V' }), true},
		"size beyond the limit":         {rawEntry(func(h []byte) { copy(h[124:136], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") }), true},
		"negative size":                 {rawEntry(func(h []byte) { copy(h[124:136], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }), true},
		"content cut short":             {archive(t, file("f", strings.Repeat("x", 5000)))[:2000], true},
		"archive cut in a header":       {archive(t, file("f", "x"), file("g", "y"))[:1500], true},
		"gzip cut short":                {zip(t, archive(t, file("f", strings.Repeat("random", 5000))))[:60], true},
		"gzip with garbage behind":      {append(zip(t, archive(t, file("f", "x"))), "garbage"...), true},
		"not an archive":                {bytes.Repeat([]byte("no tar "), 1000), true},
		"duplicates":                    {archive(t, file("f", "1"), dirEnt("f", 0), sym("f", "x"), file("f", "2"), dirEnt("f", 0o755), file("f/g", "3")), false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, form := range []layer.Form{layer.Plain{}, layer.Overlay{}} {
				tree, check := den(t)
				_, err := apply(t, c.data, tree, layer.Options{Form: form})
				if c.refuse != (err != nil) {
					t.Errorf("%T: error %v, want one: %v", form, err, c.refuse)
				}
				check()
				// The same over a lower layer that sets the trap.
				lower := archive(t, sym("x", "/canary"), sym("y", "../canary"), sym("a", "../../canary"), sym("h", "../canary/secret"))
				tree, check = den(t)
				if _, ok := form.(layer.Plain); ok {
					if _, err := apply(t, lower, tree, layer.Options{Form: form}); err != nil {
						t.Fatal(err)
					}
					apply(t, c.data, tree, layer.Options{Form: form})
				} else {
					base, checkBase := den(t)
					if _, err := apply(t, lower, base, layer.Options{Form: form}); err != nil {
						t.Fatal(err)
					}
					r, err := rootfd.Open(base)
					if err != nil {
						t.Fatal(err)
					}
					defer r.Close()
					before := describe(t, base)
					apply(t, c.data, tree, layer.Options{Form: form, Parents: func(context.Context) ([]*rootfd.Root, error) { return []*rootfd.Root{r}, nil }})
					same(t, "lower layer", describe(t, base), before)
					checkBase()
				}
				check()
			}
		})
	}
}

func TestConfinedResults(t *testing.T) {
	clitest.Root(t)
	tree, check := den(t)
	_, err := apply(t, archive(t, sym("x", "/inside"), file("x/f", "1"), sym("up", "../../../top"), file("up/g", "2"), sym("file", "../file"), file("file", "mine")), tree, layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	check()
	for name, want := range map[string]string{"inside/f": "1", "top/g": "2", "file": "mine"} {
		if got, err := os.ReadFile(filepath.Join(tree, name)); string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestForeignAttributes(t *testing.T) {
	clitest.Root(t)
	dir := rootDir(t)
	_, err := apply(t, archive(t, ent{name: "d/", kind: tar.TypeDir, mode: 0o755, xattrs: map[string]string{
		"trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/etc", "user.overlay.opaque": "y", "trusted.overlay.overlay.opaque": "y",
		"security.selinux": "x", "user.kept": "1"}}), dir, layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(filepath.Join(dir, "d"), buf)
	if got := string(buf[:max(n, 0)]); err != nil || got != "user.kept\x00" {
		t.Errorf("extended attributes %q, %v, want user.kept only", got, err)
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		o    layer.Options
	}{
		"bytes":    {archive(t, file("f", strings.Repeat("x", 100000))), layer.Options{MaxBytes: 50000}},
		"inflated": {zip(t, archive(t, file("f", strings.Repeat("x", 100000)))), layer.Options{MaxBytes: 50000}},
		"behind":   {append(archive(t), make([]byte, 100000)...), layer.Options{MaxBytes: 50000}},
		"entries":  {archive(t, file("a", ""), file("b", ""), file("c", "")), layer.Options{MaxEntries: 2}},
		"ratio":    {zip(t, make([]byte, 80<<20)), layer.Options{MaxRatio: 100}},
	} {
		c.o.Rootless = os.Geteuid() != 0
		if _, err := apply(t, c.data, rootDir(t), c.o); !errors.Is(err, layer.ErrLimit) {
			t.Errorf("%s: %v, want ErrLimit", name, err)
		}
	}
}

func TestVerified(t *testing.T) {
	data := archive(t, file("f", "x"))
	o := layer.Options{Rootless: os.Geteuid() != 0, DiffID: digest.FromBytes(data)}
	res, err := apply(t, zip(t, data), rootDir(t), o)
	if err != nil || res.DiffID != o.DiffID || res.Entries != 1 || res.Bytes != int64(len(data)) {
		t.Errorf("%+v, %v", res, err)
	}
	// Bytes behind the archive's end belong to the diffID, and to none of the files.
	if _, err := apply(t, append(bytes.Clone(data), make([]byte, 10240)...), rootDir(t), o); !errors.Is(err, fault.ErrUnverified) {
		t.Errorf("other content: %v, want ErrUnverified", err)
	}
	o.MediaType = "application/vnd.oci.image.layer.v1.tar+zstd"
	if _, err := apply(t, zip(t, data), rootDir(t), o); !errors.Is(err, fault.ErrUnverified) {
		t.Errorf("gzip as zstd: %v, want ErrUnverified", err)
	}
	o.MediaType = "application/octet-stream"
	if _, err := apply(t, data, rootDir(t), o); !errors.Is(err, fault.ErrUnverified) {
		t.Errorf("no layer: %v, want ErrUnverified", err)
	}
	// The blob's own verification is the better reason.
	o = layer.Options{Rootless: o.Rootless}
	root, err := rootfd.Open(rootDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	bad := io.MultiReader(bytes.NewReader(zip(t, data)[:30]), failing{fault.As(fault.ErrUnverified, errors.New("digest"))})
	if _, err := layer.Apply(context.Background(), bad, root, o); !errors.Is(err, fault.ErrUnverified) {
		t.Errorf("damaged blob: %v, want ErrUnverified", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	root, err := rootfd.Open(rootDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := layer.Apply(ctx, bytes.NewReader(archive(t, file("f", "x"))), root, layer.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// FuzzApply gives both forms any bytes: no panic, no hang, and nothing outside of the tree.
func FuzzApply(f *testing.F) {
	for _, layers := range images(f) {
		for _, l := range layers {
			f.Add(l)
		}
	}
	f.Add(archive(f, sym("x", "/canary"), file("x/secret", "x"), gone("x/dir"), hard("h", "x/secret"), opaque(".")))
	f.Add(zip(f, archive(f, file("f", "x"))))
	top := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, err := os.MkdirTemp(top, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.WriteFile(filepath.Join(dir, "canary"), []byte("c"), 0o600); err != nil {
			t.Fatal(err)
		}
		lower := filepath.Join(dir, "lower")
		for _, d := range []string{lower, filepath.Join(dir, "plain"), filepath.Join(dir, "overlay")} {
			if err := os.Mkdir(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		o := layer.Options{Form: layer.Overlay{UserXattr: true}, Rootless: true, MaxBytes: 1 << 20, MaxEntries: 100}
		if _, err := apply(t, archive(t, sym("x", "/canary"), sym("lib", "../../usr"), file("h1", "1"), hard("h2", "h1"), dirEnt("d", 0)), lower, o); err != nil {
			t.Fatal(err)
		}
		before := describe(t, lower)
		r, err := rootfd.Open(lower)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		o.Parents = func(context.Context) ([]*rootfd.Root, error) { return []*rootfd.Root{r}, nil }
		apply(t, data, filepath.Join(dir, "overlay"), o)
		o.Form = layer.Plain{}
		apply(t, data, filepath.Join(dir, "plain"), o)
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 4 {
			t.Errorf("outside: %v, %v", entries, err)
		}
		if c, err := os.ReadFile(filepath.Join(dir, "canary")); string(c) != "c" || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("canary %q, %v", c, err)
		}
		same(t, "lower", describe(t, lower), before)
	})
}

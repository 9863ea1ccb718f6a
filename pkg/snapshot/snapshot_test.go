// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// files makes a layer of files with their names as content; a name that ends in a slash is a directory.
func files(t testing.TB, names ...string) (Layer, *atomic.Int32) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		h := &tar.Header{Name: n, Mode: 0o755, Typeflag: tar.TypeDir, ModTime: time.Unix(1, 0)}
		if !strings.HasSuffix(n, "/") {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(n))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, n)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	opened := new(atomic.Int32)
	return Layer{DiffID: digest.FromBytes(b.Bytes()), Open: func(context.Context) (io.ReadCloser, error) {
		opened.Add(1)
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	}}, opened
}

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// entries are the store's names but the two that are always there.
func entries(t testing.TB, s *Store) []string {
	t.Helper()
	list, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if e.Name() != lockFile && e.Name() != repairFile {
			names = append(names, e.Name())
		}
	}
	return names
}

func stack(t testing.TB, s *Store, layers ...Layer) *Stack {
	t.Helper()
	ses, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := Overlay{}.Stack(ctx, ses, layers)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStackIsMadeOnce(t *testing.T) {
	clitest.Root(t)
	s := open(t)
	base, opened0 := files(t, "./", "etc/", "etc/a", "etc/b", "usr/")
	own, opened1 := files(t, "etc/", "etc/c")
	relying, opened2 := files(t, "usr/implied", "etc/.wh.a")
	st := stack(t, s, base, own, relying)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := stack(t, s, base, own, relying); !slices.Equal(got.Lower, st.Lower) {
				t.Errorf("lower %q, want %q", got.Lower, st.Lower)
			}
		})
	}
	wg.Wait()
	for i, o := range []*atomic.Int32{opened0, opened1, opened2} {
		if o.Load() != 1 {
			t.Errorf("layer %d was unpacked %d times", i, o.Load())
		}
	}
	want := []string{
		key(ChainID(base.DiffID, own.DiffID, relying.DiffID), Overlay{}), key(own.DiffID, Overlay{}), key(base.DiffID, Overlay{}),
	}
	for i, k := range want {
		if st.Lower[i] != s.path(k, treeDir) {
			t.Errorf("lower %d is %s, want %s", i, st.Lower[i], k)
		}
	}
	if st.Root != st.Lower[2] {
		t.Errorf("root's metadata from %q, want the base's", st.Root)
	}
	// Another image: the layer that stands alone is shared, the one that relies on its parents is not.
	stack(t, s, own, relying)
	if opened1.Load() != 1 || opened2.Load() != 2 {
		t.Errorf("unpacked %d and %d times, want 1 and 2", opened1.Load(), opened2.Load())
	}
	if got := entries(t, s); len(got) != 4 {
		t.Errorf("entries %q, want 4", got)
	}
}

// Many at once, with layers that rely on each other in opposite orders: nobody waits in a circle.
func TestStacksSideBySide(t *testing.T) {
	clitest.Root(t)
	s := open(t)
	var layers []Layer
	for _, n := range []string{"a", "b", "c", "d"} {
		l, _ := files(t, "x/"+n, "x/.wh.gone")
		layers = append(layers, l)
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			own := slices.Clone(layers)
			if i%2 == 1 {
				slices.Reverse(own)
			}
			st := stack(t, s, own[i%3:]...)
			if len(st.Lower) != 4-i%3 {
				t.Errorf("lower %q", st.Lower)
			}
		})
	}
	wg.Wait()
	for _, e := range entries(t, s) {
		if strings.HasPrefix(e, atomicfile.TempPrefix) || strings.HasSuffix(e, lockSuffix) {
			t.Errorf("left over: %s", e)
		}
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	clitest.Root(t)
	s := open(t)
	good, _ := files(t, "a")
	bad, _ := files(t, "b")
	bad.DiffID = digest.FromString("something else")
	ses, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	if _, err := (Overlay{}).Stack(context.Background(), ses, []Layer{good, bad}); !errors.Is(err, fault.ErrUnverified) {
		t.Errorf("%v, want ErrUnverified", err)
	}
	for _, e := range entries(t, s) {
		if e != key(good.DiffID, Overlay{}) {
			t.Errorf("left over: %s", e)
		}
	}
	bad.DiffID = "sha256:../../x"
	if _, err := (Overlay{}).Stack(context.Background(), ses, []Layer{bad}); err == nil {
		t.Error("a digest that is a path was taken")
	}
}

// An entry from before a reboot that was never synced may have holes.
func TestReboot(t *testing.T) {
	clitest.Root(t)
	s := open(t)
	l, opened := files(t, "a")
	st := stack(t, s, l)
	metaPath := filepath.Join(filepath.Dir(st.Lower[0]), metaFile)
	reboot := func() {
		data, err := os.ReadFile(metaPath)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(metaPath, bytes.Replace(data, []byte(bootID()), []byte("before"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reboot()
	users := filepath.Join(filepath.Dir(metaPath), usersDir)
	if err := os.WriteFile(filepath.Join(users, "bundle"), []byte("/a/bundle"), 0o600); err != nil {
		t.Fatal(err)
	}
	stack(t, s, l)
	if opened.Load() != 2 {
		t.Errorf("unpacked %d times, want 2: the first may be damaged", opened.Load())
	}
	// A bundle outlives the reboot: its layers stay its own.
	if data, err := os.ReadFile(filepath.Join(users, "bundle")); string(data) != "/a/bundle" {
		t.Errorf("who uses the layer: %q, %v", data, err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(metaPath, long, long); err != nil {
		t.Fatal(err)
	}
	stack(t, s, l) // marks it as synced
	reboot()
	stack(t, s, l)
	if opened.Load() != 2 {
		t.Errorf("unpacked %d times, want 2: it was synced", opened.Load())
	}
}

func TestGC(t *testing.T) {
	clitest.Root(t)
	s := open(t)
	a, _ := files(t, "a")
	b, _ := files(t, "b")
	c, _ := files(t, "c")
	stack(t, s, c)
	ses, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	st, err := Overlay{}.Stack(context.Background(), ses, []Layer{a, b})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	if _, err := s.GC(ctx, GCOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gc beside a session: %v, want that it waits", err)
	}
	cancel()
	dir := filepath.Join(t.TempDir(), "bundle")
	if _, err := bundle.Create(dir, &specs.Spec{}); err != nil {
		t.Fatal(err)
	}
	if err := ses.Use(st, dir); err != nil {
		t.Fatal(err)
	}
	ses.Close()
	for _, left := range []string{".tmp-dead", ".tmp-dead2", "dead.lock"} { // of killed processes
		if err := os.Mkdir(s.path(left), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stack(t, s, c) // the next session takes temporary directories with it
	if got := entries(t, s); len(got) != 4 || slices.Contains(got, ".tmp-dead") {
		t.Errorf("entries %q", got)
	}
	gc := func(o GCOptions, want int) {
		t.Helper()
		res, err := s.GC(context.Background(), o)
		if err != nil || len(res.Keys) != want {
			t.Errorf("gc: %+v, %v, want %d entries removed", res, err, want)
		}
	}
	gc(GCOptions{DryRun: true}, 1)
	gc(GCOptions{Keep: func(diffID, _ digest.Digest) bool { return diffID == c.DiffID }}, 0)
	gc(GCOptions{}, 1)
	if got := entries(t, s); len(got) != 2 {
		t.Errorf("entries %q, want the bundle's two", got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	gc(GCOptions{}, 2)
	if got := entries(t, s); len(got) != 0 {
		t.Errorf("entries %q, want none", got)
	}
}

func TestAdopt(t *testing.T) {
	clitest.Root(t)
	s := open(t)
	base, _ := files(t, "a")
	stack(t, s, base)
	upper := filepath.Join(filepath.Dir(s.dir), "upper")
	if err := os.Mkdir(upper, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "new"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	ses, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	id := digest.FromString("the layer made of upper")
	if err := ses.Adopt(context.Background(), []digest.Digest{base.DiffID}, id, upper, Overlay{}); err != nil {
		t.Fatal(err)
	}
	st := stack(t, s, base, Layer{DiffID: id, Open: func(context.Context) (io.ReadCloser, error) { return nil, errors.New("not needed") }})
	if data, err := os.ReadFile(filepath.Join(st.Lower[0], "new")); string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Lstat(upper); err == nil {
		t.Error("upper is still there")
	}
}

// SPDX-License-Identifier: Apache-2.0

package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/build"
	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
)

// roots are the private directories of a test.
func roots(t *testing.T) build.Options {
	t.Helper()
	dir := t.TempDir()
	return build.Options{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Output: &log{t: t}}
}

// log is where progress goes in tests.
type log struct {
	t  *testing.T
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func load(t *testing.T, o build.Options, res build.Result) (*layout.Layout, *image.Image) {
	t.Helper()
	l, err := layout.Open(place.Images(o.Root))
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Resolve(context.Background(), res.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Load(context.Background(), l, d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, img
}

// tree lists the files of an image: mode, owner, path, and content or target.
func tree(t *testing.T, o build.Options, res build.Result) string {
	t.Helper()
	l, img := load(t, o, res)
	files := map[string]string{}
	for i, d := range img.Manifest.Layers {
		r, err := l.Fetch(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		last := ""
		for tr := tar.NewReader(z); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			name := strings.Trim(h.Name, "/")
			if name <= last && !strings.Contains(name, ".wh.") && !strings.HasPrefix(last, strings.SplitN(name, "/", 2)[0]) {
				t.Errorf("layer %d: %s comes after %s", i, name, last)
			}
			last = name
			if h.ModTime.Unix() > build.DefaultEpoch {
				t.Errorf("layer %d: %s: time %v is after the epoch", i, name, h.ModTime)
			}
			dir, base := filepath.Split(name)
			if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
				for f := range files {
					if f == dir+hidden || strings.HasPrefix(f, dir+hidden+"/") || hidden == ".wh..opq" && strings.HasPrefix(f, dir) {
						delete(files, f)
					}
				}
				continue
			}
			data, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = line(h, data)
		}
	}
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		b.WriteString(files[n] + "\n")
	}
	return b.String()
}

func line(h *tar.Header, data []byte) string {
	s := fmt.Sprintf("%04o %d:%d %s", h.Mode&0o7777, h.Uid, h.Gid, strings.Trim(h.Name, "/"))
	switch h.Typeflag {
	case tar.TypeDir:
		return s + "/"
	case tar.TypeSymlink:
		return s + " -> " + h.Linkname
	case tar.TypeLink:
		return s + " == " + strings.Trim(h.Linkname, "/")
	case tar.TypeReg:
		return s + fmt.Sprintf(" %q", data)
	}
	return s + " type " + string(h.Typeflag)
}

// script makes the context of a case.
func script(t *testing.T, dir, file string) {
	t.Helper()
	if _, err := os.Stat(file); err != nil {
		return
	}
	cmd := exec.Command("sh", "-eu", file)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", file, err, out)
	}
}

func abs(t *testing.T, p string) string {
	t.Helper()
	p, err := filepath.Abs(p)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// caseContext makes the context of the case in dir, with its Dockerfile.
func caseContext(t *testing.T, dir string) string {
	t.Helper()
	ctx := filepath.Join(t.TempDir(), "context")
	if err := os.Mkdir(ctx, 0o755); err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(ctx, "Dockerfile"), string(src))
	if needs, err := os.ReadFile(filepath.Join(dir, "needs")); err == nil {
		clitest.Need(t, strings.Fields(string(needs))...)
	}
	script(t, ctx, abs(t, filepath.Join(dir, "context.sh")))
	return ctx
}

func write(t *testing.T, file, data string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFiles runs the cases in testdata: a Dockerfile, a script that makes the context, and the tree that comes
// out of it or the error. UPDATE=1 rewrites the latter.
func TestFiles(t *testing.T) {
	clitest.Root(t)
	cases, _ := filepath.Glob("testdata/*/Dockerfile")
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			o := roots(t)
			o.Context = caseContext(t, dir)
			res, err := build.Build(context.Background(), o)
			name, other, got := "tree", "err", ""
			if err != nil {
				name, other, got = "err", "tree", err.Error()+"\n"
			} else {
				got = tree(t, o, res)
			}
			golden := filepath.Join(dir, name)
			if os.Getenv("UPDATE") != "" {
				os.Remove(filepath.Join(dir, other))
				write(t, golden, got)
				return
			}
			want, _ := os.ReadFile(golden)
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if left, _ := os.ReadDir(filepath.Join(place.Build(o.Root), "tmp")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestBuildah compares trees with what buildah makes of the same cases. A file "buildah" in a case says why
// it differs.
func TestBuildah(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "buildah")
	dir := t.TempDir()
	store := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
	cases, _ := filepath.Glob("testdata/*/tree")
	for _, golden := range cases {
		from := filepath.Dir(golden)
		name := filepath.Base(from)
		if why, err := os.ReadFile(filepath.Join(from, "buildah")); err == nil {
			t.Logf("%s: not compared: %s", name, bytes.TrimSpace(why))
			continue
		}
		if src, _ := os.ReadFile(filepath.Join(from, "Dockerfile")); bytes.Count(src, []byte("FROM")) > 1 {
			continue // the vfs driver copies everything for each stage
		}
		t.Run(name, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "out.tar")
			ctx := caseContext(t, from)
			bud := append(slices.Clone(store), "bud", "-q", "--isolation", "chroot", "--layers=false", "-t", name, ctx)
			if out, err := exec.Command("buildah", bud...).CombinedOutput(); err != nil {
				if strings.Contains(string(out), "operation not permitted") {
					t.Skipf("SKIP: buildah does not run here: %s", out)
				}
				t.Fatalf("buildah: %v\n%s", err, out)
			}
			export := append(slices.Clone(store), "push", "-q", name, "oci-archive:"+archive)
			if out, err := exec.Command("buildah", export...).CombinedOutput(); err != nil {
				t.Fatalf("buildah push: %v\n%s", err, out)
			}
			got := archiveTree(t, archive)
			want, _ := os.ReadFile(golden)
			if got != string(want) {
				t.Errorf("buildah has\n%s\nctr-build\n%s", got, want)
			}
		})
	}
}

// TestBuildahConfig compares what config instructions leave in the image. Not SHELL: buildah drops it in OCI images.
func TestBuildahConfig(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "buildah")
	src := `FROM scratch
ARG V=1
ENV A=1 B="two words" C=$V
LABEL name=app version="$V"
EXPOSE 80 443/tcp 53/udp
VOLUME /data /x
VOLUME ["/y"]
USER 5:6
STOPSIGNAL SIGQUIT
WORKDIR sub
CMD echo $A
ENTRYPOINT ["/init", "x"]
`
	o := roots(t)
	o.Context = t.TempDir()
	write(t, filepath.Join(o.Context, "Dockerfile"), src)
	res, err := build.Build(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	_, img := load(t, o, res)
	dir := t.TempDir()
	store := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
	if out, err := exec.Command("buildah", append(slices.Clone(store), "bud", "-q", "--isolation", "chroot", "-t", "config", o.Context)...).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "operation not permitted") {
			t.Skipf("SKIP: buildah does not run here: %s", out)
		}
		t.Fatalf("buildah: %v\n%s", err, out)
	}
	out, err := exec.Command("buildah", append(slices.Clone(store), "inspect", "--type", "image", "config")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var theirs struct{ OCIv1 ocispec.Image }
	if err := json.Unmarshal(out, &theirs); err != nil {
		t.Fatal(err)
	}
	delete(theirs.OCIv1.Config.Labels, "io.buildah.version")
	got, _ := json.MarshalIndent(img.Config.Image.Config, "", " ")
	want, _ := json.MarshalIndent(theirs.OCIv1.Config, "", " ")
	if !bytes.Equal(got, want) {
		t.Errorf("ctr-build has\n%s\nbuildah\n%s", got, want)
	}
}

// archiveTree is tree for an OCI archive with one layer.
func archiveTree(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			continue // a document
		}
		for lr := tar.NewReader(z); ; {
			h, err := lr.Next()
			if err != nil {
				break
			}
			content, err := io.ReadAll(lr)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Trim(h.Name, "/.") != "" {
				out = append(out, line(h, content))
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return strings.Compare(strings.TrimRight(strings.Fields(a)[2], "/"), strings.TrimRight(strings.Fields(b)[2], "/"))
	})
	if len(out) == 0 {
		return ""
	}
	return strings.Join(out, "\n") + "\n"
}

// TestCache: a build is done again exactly as far as its inputs changed.
func TestCache(t *testing.T) {
	clitest.Root(t)
	o := roots(t)
	o.Context = t.TempDir()
	out := o.Output.(*log)
	write(t, filepath.Join(o.Context, "Dockerfile"), "FROM scratch AS one\nCOPY a /a\nCOPY b /b\nFROM scratch\nCOPY c /c\nCOPY --from=one /a /from-one\n")
	for _, f := range []string{"a", "b", "c"} {
		write(t, filepath.Join(o.Context, f), f)
	}
	do := func(want string) build.Result {
		t.Helper()
		res, err := build.Build(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		said := out.take()
		var cached []string
		for i := 2; i <= 6; i++ {
			for _, l := range strings.Split(said, "\n") {
				if strings.HasPrefix(l, fmt.Sprintf("Dockerfile:%d:", i)) && strings.HasSuffix(l, "(cached)") {
					cached = append(cached, fmt.Sprint(i))
				}
			}
		}
		if got := strings.Join(cached, " "); got != want {
			t.Errorf("cached are lines %q, want %q:\n%s", got, want, said)
		}
		return res
	}
	first := do("")
	if again := do("2 3 5 6"); again.Digest != first.Digest {
		t.Errorf("got %s, then %s", first.Digest, again.Digest)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(o.Context, "a"), later, later); err != nil {
		t.Fatal(err)
	}
	if again := do("2 3 5 6"); again.Digest != first.Digest { // times do not count
		t.Errorf("got %s, then %s", first.Digest, again.Digest)
	}
	write(t, filepath.Join(o.Context, "b"), "changed")
	if again := do("2 5 6"); again.Digest != first.Digest { // what is taken from the stage did not change
		t.Errorf("got %s, then %s", first.Digest, again.Digest)
	}
	write(t, filepath.Join(o.Context, "a"), "changed")
	changed := do("5")
	if changed.Digest == first.Digest {
		t.Error("a changed file left the image as it was")
	}
	if err := os.Chmod(filepath.Join(o.Context, "c"), 0o600); err != nil {
		t.Fatal(err)
	}
	do("2 3") // modes count
	o.NoCache = true
	do("")
	o.NoCache = false
	if err := os.RemoveAll(place.Snapshots(o.Root)); err != nil { // what only snapshots have is made again
		t.Fatal(err)
	}
	do("5 6")
	if _, err := build.Prune(build.PruneOptions{Root: o.Root, Run: o.Run}); err != nil {
		t.Fatal(err)
	}
	do("")
}

// TestReproducible: two directories, two times, two umasks, no common cache: one digest.
func TestReproducible(t *testing.T) {
	clitest.Root(t)
	var digests []string
	for i := range 2 {
		o := roots(t)
		o.Context = filepath.Join(t.TempDir(), strings.Repeat("x", i+1))
		if err := os.MkdirAll(filepath.Join(o.Context, "dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(o.Context, "Dockerfile"), "FROM scratch\nCOPY dir /d\nWORKDIR /w/x\nCOPY <<a /made/\nb\na\nLABEL z=1 a=2\nEXPOSE 80\n")
		write(t, filepath.Join(o.Context, "dir", "f"), "f")
		then := time.Unix(int64(1700000000+i*1000), int64(i))
		for _, f := range []string{"dir/f", "dir"} {
			if err := os.Chtimes(filepath.Join(o.Context, f), then, then); err != nil {
				t.Fatal(err)
			}
		}
		was := syscall.Umask(i * 0o077)
		res, err := build.Build(context.Background(), o)
		syscall.Umask(was)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, res.Digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("got %v", digests)
	}
}

// TestConcurrent: builds of one project at the same time share a cache and agree.
func TestConcurrent(t *testing.T) {
	clitest.Root(t)
	o := roots(t)
	o.Context = t.TempDir()
	write(t, filepath.Join(o.Context, "Dockerfile"), "FROM scratch AS a\nCOPY f /1\nCOPY f /2\nFROM scratch AS b\nCOPY f /3\nFROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n")
	write(t, filepath.Join(o.Context, "f"), strings.Repeat("content", 1000))
	var wg sync.WaitGroup
	results := make([]build.Result, 6)
	errs := make([]error, len(results))
	for i := range results {
		wg.Go(func() {
			o := o
			o.Names = []string{fmt.Sprintf("app:%d", i)}
			results[i], errs[i] = build.Build(context.Background(), o)
		})
	}
	wg.Wait()
	for i := range results {
		if errs[i] != nil || results[i].Digest != results[0].Digest {
			t.Errorf("build %d: %v %v, want %v", i, results[i].Digest, errs[i], results[0].Digest)
		}
	}
	l, _ := load(t, o, results[0])
	if entries, err := l.Entries(); err != nil || len(entries) != len(results) {
		t.Errorf("got %d names, %v, want %d", len(entries), err, len(results))
	}
}

// TestLeftovers: what a killed build left is gone after the next one.
func TestLeftovers(t *testing.T) {
	clitest.Root(t)
	o := roots(t)
	o.Context = t.TempDir()
	write(t, filepath.Join(o.Context, "Dockerfile"), "FROM scratch\nCOPY . /\n")
	tmp := filepath.Join(place.Build(o.Root), "tmp")
	dead := filepath.Join(tmp, "build-dead", "op-1", "upper")
	if err := os.MkdirAll(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := build.Build(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// TestCanceled: a build that is stopped leaves nothing at work and no name.
func TestCanceled(t *testing.T) {
	clitest.Root(t)
	o := roots(t)
	o.Context, o.Names = t.TempDir(), []string{"never"}
	write(t, filepath.Join(o.Context, "Dockerfile"), "FROM scratch\nCOPY . /\n")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := build.Build(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	l, err := layout.Open(place.Images(o.Root))
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := l.Entries(); len(entries) > 0 {
		t.Errorf("got names %v", entries)
	}
}

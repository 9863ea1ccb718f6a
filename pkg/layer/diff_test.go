// SPDX-License-Identifier: Apache-2.0

package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/layer"
)

func diff(t testing.TB, dir string, o layer.DiffOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := layer.Diff(context.Background(), &b, dir, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func names(t testing.TB, data []byte) []string {
	t.Helper()
	var all []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h.Name)
	}
}

// What Diff writes of a layer that Apply made is that layer again.
func TestRoundTrip(t *testing.T) {
	clitest.Root(t)
	for name, layers := range images(t) {
		if name == "names" { // subject to TestFormsAgree; a directory named like a whiteout cannot come back
			continue
		}
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
			var again [][]byte
			for _, l := range layers[:1] {
				dir := rootDir(t)
				if _, err := apply(t, l, dir, layer.Options{}); err != nil {
					t.Fatal(err)
				}
				first, second := diff(t, dir, layer.DiffOptions{Root: true}), diff(t, dir, layer.DiffOptions{Root: true})
				if !bytes.Equal(first, second) {
					t.Error("two diffs of one tree differ")
				}
				again = append(again, first)
			}
			trim := func(tree map[string]string) map[string]string { // whole seconds
				for k, v := range tree {
					tree[k] = strings.ReplaceAll(v, "1000000000.500", "1000000000.0")
				}
				return tree
			}
			same(t, "again", trim(describe(t, plain(t, again))), trim(describe(t, plain(t, layers[:1]))))
		})
	}
}

// A container changes a tree through an overlay; its upper directory as one more layer gives what it saw.
func TestDiffOfContainer(t *testing.T) {
	clitest.Root(t)
	layers := images(t)["one layer"]
	lower, upper, work, merged := plain(t, layers), rootDir(t), t.TempDir(), t.TempDir()
	if err := layer.CopyMeta(lower, upper); err != nil {
		t.Fatal(err)
	}
	opts := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work + ",redirect_dir=off,metacopy=off"
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		t.Skipf("SKIP: cannot mount an overlay here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	script := `set -e; cd "$1"
rm etc/gone; echo new > etc/new; ln etc/new etc/new2; chmod 4711 su; rm -r d; mkdir d; echo z > d/z
rm tochange; mkdir tochange; rm -r todir; ln -s x todir; mkfifo f; mknod zero c 1 5; chown 7:8 usr; touch -d @2000000000 late`
	if out, err := exec.Command("sh", "-c", script, "sh", merged).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data := diff(t, upper, layer.DiffOptions{})
	want := []string{"d/", "d/.wh..wh..opq", "d/z", "etc/", "etc/.wh.gone", "etc/new", "etc/new2", "f", "late", "su", "tochange/", "tochange/.wh..wh..opq", "todir", "usr/", "zero"}
	got := names(t, data)
	if got = slices.DeleteFunc(got, func(s string) bool { return s == "tochange/.wh..wh..opq" }); !slices.Equal(got, slices.DeleteFunc(want, func(s string) bool { return s == "tochange/.wh..wh..opq" })) {
		t.Errorf("entries %q", got)
	}
	seconds := func(tree map[string]string) map[string]string {
		for k, v := range tree {
			head, rest, _ := strings.Cut(v, " mtime=")
			sec, rest, _ := strings.Cut(rest, ".")
			_, rest, _ = strings.Cut(rest, " ")
			tree[k] = head + " " + sec + " " + rest
		}
		delete(tree, ".")
		return tree
	}
	want2 := seconds(describe(t, merged))
	same(t, "plain", seconds(describe(t, plain(t, [][]byte{layers[0], data}))), want2)
	same(t, "overlay", seconds(describe(t, overlaid(t, [][]byte{layers[0], data}))), want2)

	epoch := time.Unix(1234567890, 0)
	for r := tar.NewReader(bytes.NewReader(diff(t, upper, layer.DiffOptions{Epoch: &epoch}))); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		if h.ModTime.After(epoch) {
			t.Errorf("%s: time %v after the epoch %v", h.Name, h.ModTime, epoch)
		}
	}
	skipped := names(t, diff(t, upper, layer.DiffOptions{Skip: func(p string) bool { return p == "etc" || p == "zero" }}))
	if slices.Contains(skipped, "etc/new") || slices.Contains(skipped, "zero") || !slices.Contains(skipped, "su") {
		t.Errorf("with Skip: %q", skipped)
	}
	if err := os.WriteFile(filepath.Join(upper, ".wh.x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := layer.Diff(context.Background(), io.Discard, upper, layer.DiffOptions{}); err == nil {
		t.Error("a file named .wh.x went into a layer")
	}
}

func TestCompressor(t *testing.T) {
	data := archive(t, file("f", strings.Repeat("text ", 100000)), file("g", "g"))
	for _, c := range []layer.Compression{layer.None, layer.Gzip, layer.Zstd} {
		var first []byte
		for range 2 {
			var b bytes.Buffer
			w, err := layer.NewCompressor(&b, c, 0)
			if err != nil {
				t.Fatal(err)
			}
			for chunk := range slices.Chunk(data, 1000) {
				if _, err := w.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			blob, err := w.Close()
			if err != nil {
				t.Fatal(err)
			}
			if blob.DiffID != digest.FromBytes(data) || blob.Descriptor.Digest != digest.FromBytes(b.Bytes()) || blob.Descriptor.Size != int64(b.Len()) {
				t.Errorf("%s: %+v", c, blob)
			}
			if first != nil && !bytes.Equal(first, b.Bytes()) {
				t.Errorf("%s: two runs differ", c)
			}
			first = b.Bytes()
			o := layer.Options{MediaType: blob.Descriptor.MediaType, DiffID: blob.DiffID, Rootless: os.Geteuid() != 0}
			if _, err := apply(t, first, rootDir(t), o); err != nil {
				t.Errorf("%s: %v", c, err)
			}
		}
	}
	if _, err := layer.NewCompressor(io.Discard, "xz", 0); err == nil {
		t.Error("xz: no error")
	}
}

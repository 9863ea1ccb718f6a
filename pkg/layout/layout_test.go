// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/layout/layouttest"
)

func create(t *testing.T) (*layout.Layout, *layout.Writer) {
	t.Helper()
	l, err := layout.Create(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return l, w
}

func blobFile(l *layout.Layout, d digest.Digest) string {
	return filepath.Join(l.Dir(), "blobs", d.Algorithm().String(), d.Encoded())
}

func TestOpenMissing(t *testing.T) {
	if _, err := layout.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v, want fs.ErrNotExist", err)
	}
}

func TestCreateAmongOtherFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Create(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create: %v, want fs.ErrExist", err)
	}
}

// Fields and entries of other tools stay as the bytes they were.
func TestForeignFieldsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(vectors, "good", "foreign-fields"))); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Resolve(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("example.com/app:1", d); err != nil {
		t.Fatal(err)
	}
	if err := l.Untag("example.com/app:1"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"x-other-tool": {"b": 1, "a": [2.5, "<&>"]}`, `{"Z": "1", "z": "2"}`, `"x":null`, `"com.example.other": "kept"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("index.json lost %s:\n%s", want, data)
		}
	}
}

func TestTag(t *testing.T) {
	l, w := create(t)
	a := layouttest.Image(t, w, layouttest.Platforms()[0], layouttest.File{Name: "a"})
	b := layouttest.Image(t, w, layouttest.Platforms()[0], layouttest.File{Name: "b"})
	const name = "example.com/app:1"
	for _, d := range []ocispec.Descriptor{a, b, b} {
		if err := w.Tag(name, d); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Resolve(t.Context(), name); err != nil || got.Digest != d.Digest {
			t.Errorf("resolve: %v, %v, want %v", got.Digest, err, d.Digest)
		}
	}
	if entries, err := l.Entries(); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v, want 1", len(entries), err)
	}
	if d, err := l.Resolve(t.Context(), string(a.Digest)); err != nil || d.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("resolve a digest without an entry: %+v, %v", d, err)
	}
	if err := w.Tag("example.com/x:1", ocispec.Descriptor{MediaType: a.MediaType, Digest: digest.FromString("none"), Size: 4}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tag what is not there: %v, want fs.ErrNotExist", err)
	}
	for _, bad := range []string{" ", "a b", "../x", "a\nb", "-a", "a/", strings.Repeat("a", 2000)} {
		if err := w.Tag(bad, a); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("tag %q: %v, want a usage error", bad, err)
		}
	}
	if err := l.Untag("example.com/none:1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("untag what is not there: %v, want fs.ErrNotExist", err)
	}
	layouttest.Good(t, l)
}

func TestPlatformsAddUp(t *testing.T) {
	l, w := create(t)
	d := layouttest.Index(t, w, nil, layouttest.Platforms()...)
	tag := func(mark string) {
		t.Helper()
		d := d
		if mark != "" {
			d.Annotations = map[string]string{layout.AnnotationPlatforms: mark}
		}
		if err := w.Tag("example.com/app:1", d); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ add, want string }{{"linux/amd64", "linux/amd64"}, {"linux/arm64,linux/amd64", "linux/amd64,linux/arm64"}, {"", ""}, {"linux/amd64", ""}} {
		tag(c.add)
		got, err := l.Resolve(t.Context(), "example.com/app:1")
		if err != nil || got.Annotations[layout.AnnotationPlatforms] != c.want {
			t.Errorf("after %q: %q, %v, want %q", c.add, got.Annotations[layout.AnnotationPlatforms], err, c.want)
		}
	}
}

func TestWrongContent(t *testing.T) {
	l, w := create(t)
	want := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("right"), Size: 5}
	for _, content := range []string{"wrong", "righ", "right, and more"} {
		if err := w.PutVerified(t.Context(), want, strings.NewReader(content)); !errors.Is(err, layout.ErrDigestMismatch) || !errors.Is(err, fault.ErrUnverified) {
			t.Errorf("put %q: %v, want ErrDigestMismatch", content, err)
		}
	}
	if l.Has(want.Digest) {
		t.Error("wrong content is there")
	}
	if err := w.PutVerified(t.Context(), want, strings.NewReader("right")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blobFile(l, want.Digest), []byte("Right"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := l.Fetch(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, layout.ErrDigestMismatch) {
		t.Errorf("read: %v, want ErrDigestMismatch", err)
	}
	w.Close()
	if res, err := l.Fsck(t.Context(), layout.FsckOptions{Repair: true}); err != nil || len(res.Removed) != 1 {
		t.Errorf("repair: %+v, %v", res, err)
	}
	layouttest.Good(t, l)
}

// A layout from elsewhere can hold anything where a blob should be.
func TestNoRegularFile(t *testing.T) {
	l, _ := create(t)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("x"), Size: 1}
	outside := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(outside, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for what, make := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(outside, path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		if err := make(blobFile(l, d.Digest)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Fetch(t.Context(), d); !errors.Is(err, fault.ErrUnverified) {
			t.Errorf("%s: %v, want a verification error", what, err)
		}
		if err := os.Remove(blobFile(l, d.Digest)); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []digest.Digest{"", "sha256:", "sha256:../../oci-layout", "md5:d41d8cd98f00b204e9800998ecf8427e", digest.Digest("sha256:" + strings.Repeat("A", 64))} {
		if _, err := l.Fetch(t.Context(), ocispec.Descriptor{Digest: bad, Size: 1}); !errors.Is(err, fault.ErrUnverified) {
			t.Errorf("digest %q: %v, want a verification error", bad, err)
		}
	}
}

func TestPartial(t *testing.T) {
	l, w := create(t)
	content := bytes.Repeat([]byte("0123456789"), 1000)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(content), Size: int64(len(content))}
	open := func(offset int64) *layout.Partial {
		t.Helper()
		p, err := w.Partial(t.Context(), d)
		if err != nil || p == nil || p.Offset() != offset {
			t.Fatalf("partial: %+v, %v, want offset %d", p, err, offset)
		}
		return p
	}
	p := open(0)
	if _, err := p.Write(content[:4000]); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("commit of a part: %v", err)
	}
	p = open(4000)
	waiting := make(chan error)
	go func() { // who comes second waits, and has nothing left to do
		p, err := w.Partial(t.Context(), d)
		if p != nil {
			err = errors.New("a second writer got the blob")
		}
		waiting <- err
	}()
	if _, err := p.Write(content[4000:]); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	r, err := l.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	d.Digest = digest.FromString("other")
	p = open(0)
	if _, err := p.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); !errors.Is(err, layout.ErrDigestMismatch) {
		t.Errorf("commit of wrong content: %v", err)
	}
	if res := layouttest.Good(t, l); len(res.Temps) > 0 {
		t.Errorf("left: %v", res.Temps)
	}
}

func TestGC(t *testing.T) {
	l, w := create(t)
	ctx := t.Context()
	keep := layouttest.Index(t, w, nil, layouttest.Platforms()...)
	if err := w.Tag("example.com/keep:1", keep); err != nil {
		t.Fatal(err)
	}
	gone := layouttest.Image(t, w, layouttest.Platforms()[0], layouttest.File{Name: "gone"})
	attach := func(subject ocispec.Descriptor, text string) ocispec.Descriptor {
		t.Helper()
		blob, err := w.Put(ctx, "text/plain", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		empty, err := w.Put(ctx, ocispec.MediaTypeEmptyJSON, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := w.PutJSON(ctx, ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
			"artifactType": "application/x.note", "config": empty, "layers": []ocispec.Descriptor{blob}, "subject": subject})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	note := attach(keep, "a note")
	noteOnNote := attach(note, "a note on the note")
	noteOnGone := attach(gone, "a note on what goes")
	if rs, err := l.Referrers(ctx, keep.Digest); err != nil || len(rs) != 1 || rs[0].Digest != note.Digest || rs[0].ArtifactType != "application/x.note" {
		t.Errorf("referrers: %+v, %v", rs, err)
	}
	// While somebody writes, gc waits.
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := l.GC(short, layout.GCOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("gc beside a writer: %v", err)
	}
	w.Close()
	dry, err := l.GC(ctx, layout.GCOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	res, err := l.GC(ctx, layout.GCOptions{})
	if err != nil || len(res.Blobs) != len(dry.Blobs) || len(res.Blobs) == 0 {
		t.Errorf("gc: %+v, %v, dry run said %+v", res, err, dry)
	}
	for _, d := range []ocispec.Descriptor{keep, note, noteOnNote} {
		if !l.Has(d.Digest) {
			t.Errorf("gc removed %s", d.Digest)
		}
	}
	for _, d := range []ocispec.Descriptor{gone, noteOnGone} {
		if l.Has(d.Digest) {
			t.Errorf("gc left %s", d.Digest)
		}
	}
	layouttest.Good(t, l)

	// What decides about others and cannot be read stops gc.
	if err := os.WriteFile(blobFile(l, keep.Digest), bytes.Repeat([]byte("x"), int(keep.Size)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := l.GC(ctx, layout.GCOptions{}); !errors.Is(err, fault.ErrUnverified) {
		t.Errorf("gc of a damaged layout: %v", err)
	}
	if !l.Has(note.Digest) {
		t.Error("gc of a damaged layout removed something")
	}
}

func TestOwnerAndMode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: needs root")
	}
	dir := filepath.Join(t.TempDir(), "l")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 1234, 1235); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Tag("example.com/app:1", layouttest.Image(t, w, layouttest.Platforms()[0])); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		want := uint32(0o640)
		if e.IsDir() {
			want = 0o750
		}
		if st.Uid != 1234 || st.Gid != 1235 || st.Mode&0o777 != want {
			t.Errorf("%s: owner %d:%d, mode %o, want 1234:1235, %o", path, st.Uid, st.Gid, st.Mode&0o777, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

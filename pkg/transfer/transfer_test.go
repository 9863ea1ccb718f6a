// SPDX-License-Identifier: Apache-2.0

package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/layout/layouttest"
	"github.com/ctr-tools/ctr/pkg/registry"
	"github.com/ctr-tools/ctr/pkg/transfer"
)

const app = "docker.io/library/app:1"

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

// source is a layout with an index of three platforms and a layer that does not compress.
func source(t *testing.T) (*layout.Layout, ocispec.Descriptor) {
	t.Helper()
	l, w := create(t)
	big := make([]byte, 1<<20)
	for i, x := 0, uint32(1); i < len(big); i++ {
		x = x*1664525 + 1013904223
		big[i] = byte(x >> 24)
	}
	d := layouttest.Index(t, w, []layouttest.File{{Name: "big", Data: big, Mode: 0o644}}, layouttest.Platforms()...)
	if err := w.Tag(app, d); err != nil {
		t.Fatal(err)
	}
	return l, d
}

// served is a repository of a server for the layout, behind a handler that may be in the way.
func served(t *testing.T, l *layout.Layout, around func(http.Handler) http.Handler) *registry.Repository {
	t.Helper()
	h := registry.NewServer(l, registry.ServerOptions{ReadWrite: true})
	s := httptest.NewServer(around(h))
	t.Cleanup(func() { s.Close(); h.Close() })
	ref, err := image.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.NewClient(registry.Options{}).Repository(ref, true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func plain(h http.Handler) http.Handler { return h }

func amd64(t *testing.T) []ocispec.Platform {
	t.Helper()
	p, err := image.ParsePlatform("linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	return []ocispec.Platform{p}
}

func TestFetchOnePlatformThenAll(t *testing.T) {
	src, root := source(t)
	repo := served(t, src, plain)
	l, w := create(t)
	o := transfer.Options{Platforms: amd64(t)}
	res, err := transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Descriptor.Digest != root.Digest || res.Blobs != 2 || !res.HasPlatform || strings.Join(res.Platforms, " ") != "linux/amd64" {
		t.Errorf("result %+v", res)
	}
	layouttest.Good(t, l)
	if res, err = transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, o); err != nil || res.Blobs != 0 {
		t.Errorf("again: %+v, %v", res, err)
	}
	if _, err := image.Load(t.Context(), l, root, &layouttest.Platforms()[1]); !errors.Is(err, fs.ErrNotExist) || len(fault.Hints(err)) == 0 {
		t.Errorf("load what was not fetched: %v", err)
	}
	// A sparse index cannot be pushed as it is, but from where the rest is.
	to, _ := create(t)
	dest := served(t, to, plain)
	_, err = transfer.Copy(t.Context(), transfer.In(l), app, dest, "1", transfer.Options{AllPlatforms: true, Complete: true})
	if !errors.Is(err, fs.ErrNotExist) || len(fault.Hints(err)) != 2 {
		t.Errorf("push of a sparse index: %v, hints %q", err, fault.Hints(err))
	}
	if res, err := transfer.Copy(t.Context(), transfer.In(l), app, dest, "one", transfer.Options{Single: true, Platforms: amd64(t)}); err != nil || res.Descriptor.Digest == root.Digest {
		t.Errorf("push of one platform: %+v, %v", res, err)
	}
	if res, err = transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, transfer.Options{AllPlatforms: true}); err != nil || res.HasPlatform || res.Blobs != 4 {
		t.Errorf("the rest: %+v, %v", res, err)
	}
	if d, err := l.Resolve(t.Context(), app); err != nil || d.Annotations[layout.AnnotationPlatforms] != "" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := transfer.Copy(t.Context(), transfer.In(l), app, dest, "1", transfer.Options{AllPlatforms: true, Complete: true}); err != nil {
		t.Error(err)
	}
	layouttest.Good(t, l)
	layouttest.Good(t, to)
	_, err = transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, transfer.Options{Platforms: []ocispec.Platform{{OS: "plan9", Architecture: "mips"}}})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a platform that is not there: %v", err)
	}
}

// cutting breaks off the first answers about large blobs.
func cutting(times int, ranges *atomic.Int32) func(http.Handler) http.Handler {
	var mu sync.Mutex
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				if r.Header.Get("Range") != "" {
					ranges.Add(1)
				}
				mu.Lock()
				cut := times > 0
				times--
				mu.Unlock()
				if cut {
					next.ServeHTTP(&short{ResponseWriter: w, left: 300 << 10}, r)
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// short closes the connection after some bytes.
type short struct {
	http.ResponseWriter
	left int
}

func (s *short) Write(p []byte) (int, error) {
	if len(p) > s.left {
		s.ResponseWriter.Write(p[:s.left])
		s.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	s.left -= len(p)
	return s.ResponseWriter.Write(p)
}

func TestConnectionBreaks(t *testing.T) {
	src, _ := source(t)
	var ranges atomic.Int32
	repo := served(t, src, cutting(2, &ranges))
	l, w := create(t)
	res, err := transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, transfer.Options{Platforms: amd64(t), Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if ranges.Load() == 0 {
		t.Error("what had arrived was fetched again")
	}
	if good := layouttest.Good(t, l); len(good.Temps) > 0 || res.Blobs != 2 {
		t.Errorf("%+v, left %v", res, good.Temps)
	}
}

// A second run goes on where the first was stopped, and a server that knows no ranges is read from the start.
func TestResume(t *testing.T) {
	for _, knows := range []bool{true, false} {
		src, _ := source(t)
		ctx, cancel := context.WithCancel(t.Context())
		var ranges atomic.Int32
		var stopped atomic.Bool
		repo := served(t, src, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
					if r.Header.Get("Range") != "" {
						ranges.Add(1)
						if !knows {
							r.Header.Del("Range")
						}
					} else if !stopped.Load() {
						defer func() {
							if recover() != nil { // the connection stays, and nothing comes
								<-r.Context().Done()
								panic(http.ErrAbortHandler)
							}
						}()
						next.ServeHTTP(&short{ResponseWriter: w, left: 300 << 10}, r)
						return
					}
				}
				next.ServeHTTP(w, r)
			})
		})
		l, w := create(t)
		o := transfer.Options{Platforms: amd64(t), Jobs: 1}
		go func() {
			for !stopped.Load() {
				files, _ := filepath.Glob(filepath.Join(l.Dir(), "partial", "sha256-*"))
				for _, f := range files {
					if st, err := os.Stat(f); err == nil && st.Size() > 100<<10 {
						stopped.Store(true)
						cancel()
					}
				}
				time.Sleep(time.Millisecond)
			}
		}()
		if _, err := transfer.Copy(ctx, repo, "1", transfer.Layout(w), app, o); err == nil {
			t.Fatal("the first run was not stopped")
		}
		if left := layouttest.Good(t, l).Temps; len(left) != 1 {
			t.Fatalf("left: %v, want a partial blob", left)
		}
		if _, err := transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, o); err != nil {
			t.Fatal(err)
		}
		if good := layouttest.Good(t, l); len(good.Temps) > 0 || ranges.Load() == 0 {
			t.Errorf("left %v, %d ranges", good.Temps, ranges.Load())
		}
	}
}

// A partial blob that is wrong is forgotten once; a registry that is wrong is an error.
func TestWrongContent(t *testing.T) {
	src, root := source(t)
	doc, err := src.Document(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	m, err := src.Document(t.Context(), doc.Index.Manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	layer := m.Manifest.Layers[0]
	l, w := create(t)
	p, err := w.Partial(t.Context(), layer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("not how it begins")); err != nil {
		t.Fatal(err)
	}
	p.Close()
	repo := served(t, src, plain)
	o := transfer.Options{Platforms: amd64(t)}
	if _, err := transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, o); err != nil {
		t.Fatal(err)
	}
	layouttest.Good(t, l)

	file := filepath.Join(src.Dir(), "blobs", "sha256", layer.Digest.Encoded())
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), int(layer.Size)), 0o644); err != nil {
		t.Fatal(err)
	}
	l, w = create(t)
	_, err = transfer.Copy(t.Context(), repo, "1", transfer.Layout(w), app, o)
	var side *transfer.Error
	if !errors.Is(err, layout.ErrDigestMismatch) || !errors.Is(err, fault.ErrUnverified) || !errors.As(err, &side) || side.Side != "source" {
		t.Errorf("a registry with wrong content: %v", err)
	}
	if l.Has(layer.Digest) || l.Has(root.Digest) {
		t.Error("wrong content is there")
	}
	if left := layouttest.Good(t, l).Temps; len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestArchives(t *testing.T) {
	src, root := source(t)
	for _, docker := range []bool{false, true} {
		write := func() []byte {
			t.Helper()
			var b bytes.Buffer
			a, err := transfer.NewArchiveWriter(&b, docker)
			if err != nil {
				t.Fatal(err)
			}
			o := transfer.Options{AllPlatforms: !docker, Single: docker, Jobs: 1}
			if docker {
				o.Platforms = amd64(t)
			}
			if _, err := transfer.Copy(t.Context(), transfer.In(src), app, a, app, o); err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		data := write()
		if !bytes.Equal(data, write()) {
			t.Error("the same image made other bytes")
		}
		a, err := transfer.OpenArchive(t.Context(), "-", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		l, w := create(t)
		res, err := transfer.Copy(t.Context(), a, "app:1", transfer.Layout(w), app, transfer.Options{AllPlatforms: true})
		if err != nil {
			t.Fatal(err)
		}
		if (res.Descriptor.Digest == root.Digest) == docker || res.HasPlatform {
			t.Errorf("docker %v: %+v", docker, res)
		}
		layouttest.Good(t, l)
		if _, err := transfer.OpenArchive(t.Context(), "-", bytes.NewReader(data[:len(data)/2])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("half an archive: %v", err)
		}
	}
	if _, err := transfer.OpenArchive(t.Context(), "-", strings.NewReader("text")); err == nil {
		t.Error("text is an archive")
	}
}

func FuzzArchive(f *testing.F) {
	f.Add([]byte{})
	var b bytes.Buffer
	a, err := transfer.NewArchiveWriter(&b, true)
	if err != nil {
		f.Fatal(err)
	}
	if err := a.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := transfer.OpenArchive(context.Background(), "-", bytes.NewReader(data))
		if err != nil {
			return
		}
		defer a.Close()
		entries, _ := a.Entries()
		for _, d := range entries {
			r, err := a.Fetch(context.Background(), d)
			if err == nil {
				io.Copy(io.Discard, r)
				r.Close()
			}
		}
	})
}

func TestOpenOperand(t *testing.T) {
	root := t.TempDir()
	o, err := image.ParseOperand("app:1")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = transfer.OpenOperand(t.Context(), root, o)
	if !errors.Is(err, fs.ErrNotExist) || strings.Join(fault.Hints(err), "") != "ctr-fetch app:1" {
		t.Errorf("%v, hints %q", err, fault.Hints(err))
	}
	src, d := source(t)
	for _, s := range []string{"oci:" + src.Dir(), "oci:" + src.Dir() + ":app:1", "oci:" + src.Dir() + "@" + string(d.Digest), "oci:" + src.Dir() + ":" + app} {
		o, err := image.ParseOperand(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := transfer.OpenOperand(t.Context(), root, o); err != nil || got.Digest != d.Digest {
			t.Errorf("%s: %v, %v", s, got.Digest, err)
		}
	}
}

// A stream without an end that is no archive is not spooled.
func TestEndlessStream(t *testing.T) {
	for what, endless := range map[string]io.Reader{"zeros": repeat(0), "noise": repeat('x')} {
		if _, err := transfer.OpenArchive(t.Context(), "-", endless); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

type repeat byte

func (r repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/layout/layouttest"
	"github.com/ctr-tools/ctr/pkg/registry"
)

func serve(t *testing.T, write bool) (*layout.Layout, *httptest.Server) {
	t.Helper()
	l, err := layout.Create(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	h := registry.NewServer(l, registry.ServerOptions{ReadWrite: write})
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.Close(); h.Close() })
	return l, s
}

func fill(t *testing.T, l *layout.Layout, name string) (d ocispec.Descriptor) {
	t.Helper()
	w, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	d = layouttest.Index(t, w, []layouttest.File{{Name: "a", Data: bytes.Repeat([]byte(name), 1000), Mode: 0o644}}, layouttest.Platforms()...)
	if err := w.Tag(name, d); err != nil {
		t.Fatal(err)
	}
	return d
}

type call struct {
	method, path string
	header       map[string]string
	body         string
	status       int
	want         map[string]string // headers
}

func (c call) do(t *testing.T, base string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(c.method, base+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != c.status {
		t.Errorf("%s %s: %s, want %d: %s", c.method, c.path, res.Status, c.status, body)
	}
	for k, v := range c.want {
		if got := res.Header.Get(k); got != v {
			t.Errorf("%s %s: %s is %q, want %q", c.method, c.path, k, got, v)
		}
	}
	return res, body
}

type h = map[string]string

func TestPull(t *testing.T) {
	l, s := serve(t, false)
	d := fill(t, l, "docker.io/library/app:1")
	fill(t, l, "ghcr.io/org/app:2")
	fill(t, l, "localhost:5000/app:other")
	blob := digest.FromString("none")
	index, err := l.Document(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	child := index.Index.Manifests[0]
	m, err := l.Document(t.Context(), child)
	if err != nil {
		t.Fatal(err)
	}
	layer := m.Manifest.Layers[0]
	for _, c := range []call{
		{method: "GET", path: "/v2/", status: 200, want: h{"Docker-Distribution-Api-Version": "registry/2.0"}},
		{method: "GET", path: "/", status: 404},
		{method: "POST", path: "/v2/", status: 405, want: h{"Allow": "GET, HEAD"}},
		{method: "HEAD", path: "/v2/app/manifests/1", status: 200, want: h{"Docker-Content-Digest": string(d.Digest), "Content-Type": d.MediaType, "Content-Length": fmt.Sprint(d.Size)}},
		{method: "GET", path: "/v2/library/app/manifests/1", status: 200},
		{method: "GET", path: "/v2/docker.io/library/app/manifests/1", status: 200},
		{method: "GET", path: "/v2/org/app/manifests/2", status: 200},
		{method: "GET", path: "/v2/ghcr.io/org/app/manifests/2", status: 200},
		{method: "GET", path: "/v2/app/manifests/other", status: 200},
		{method: "GET", path: "/v2/app/manifests/2", status: 404},
		{method: "GET", path: "/v2/app/manifests/" + string(child.Digest), status: 200, want: h{"Content-Type": child.MediaType}},
		{method: "GET", path: "/v2/app/manifests/" + string(blob), status: 404},
		{method: "GET", path: "/v2/app/manifests/sha256:12", status: 400},
		{method: "GET", path: "/v2/App/manifests/1", status: 404},
		{method: "GET", path: "/v2/app/../../manifests/1", status: 404},
		{method: "GET", path: "/v2/app/tags/list", status: 200},
		{method: "GET", path: "/v2/none/tags/list", status: 404},
		{method: "GET", path: "/v2/app/tags/list?n=x", status: 400},
		{method: "GET", path: "/v2/app/blobs/" + string(layer.Digest), status: 200, want: h{"Content-Length": fmt.Sprint(layer.Size)}},
		{method: "HEAD", path: "/v2/app/blobs/" + string(layer.Digest), status: 200, want: h{"Docker-Content-Digest": string(layer.Digest)}},
		{method: "GET", path: "/v2/app/blobs/" + string(layer.Digest), header: h{"Range": "bytes=10-19"}, status: 206, want: h{"Content-Length": "10", "Content-Range": fmt.Sprintf("bytes 10-19/%d", layer.Size)}},
		{method: "GET", path: "/v2/app/blobs/" + string(layer.Digest), header: h{"Range": "bytes=999999-"}, status: 416},
		{method: "GET", path: "/v2/app/blobs/" + string(blob), status: 404},
		{method: "GET", path: "/v2/app/blobs/sha256:../../index.json", status: 404},
		{method: "GET", path: "/v2/app/blobs/sha256:x", status: 400},
		{method: "DELETE", path: "/v2/app/blobs/" + string(layer.Digest), status: 405},
		{method: "GET", path: "/v2/app/referrers/" + string(d.Digest), status: 200, want: h{"Content-Type": ocispec.MediaTypeImageIndex}},
		{method: "POST", path: "/v2/app/blobs/uploads/", status: 405},
		{method: "PUT", path: "/v2/app/manifests/1", status: 405, want: h{"Allow": "GET, HEAD"}},
		{method: "DELETE", path: "/v2/app/manifests/1", status: 405},
		{method: "PATCH", path: "/v2/app/manifests/1", status: 405},
	} {
		c.do(t, s.URL)
	}
	layouttest.Good(t, l)
}

func TestTagsAreCut(t *testing.T) {
	l, s := serve(t, false)
	for _, tag := range []string{"c", "a", "b", "d"} {
		fill(t, l, "docker.io/library/app:"+tag)
	}
	var tags []string
	for next := "/v2/app/tags/list?n=3"; next != ""; {
		res, body := call{method: "GET", path: next, status: 200}.do(t, s.URL)
		var page struct{ Tags []string }
		if err := json.Unmarshal(body, &page); err != nil {
			t.Fatal(err)
		}
		tags = append(tags, page.Tags...)
		next, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	}
	if got := strings.Join(tags, " "); got != "a b c d" {
		t.Errorf("tags %q", got)
	}
	_, body := call{method: "GET", path: "/v2/app/tags/list?n=0", status: 200}.do(t, s.URL)
	if !strings.Contains(string(body), `"tags":[]`) {
		t.Errorf("n=0: %s", body)
	}
}

func TestPush(t *testing.T) {
	l, s := serve(t, true)
	content := "0123456789"
	d := digest.FromString(content)
	blob := "/v2/a/b/blobs/" + string(d)

	// One piece, with one request.
	call{method: "POST", path: "/v2/a/b/blobs/uploads/?digest=" + string(d), body: content, status: 201, want: h{"Location": blob}}.do(t, s.URL)
	call{method: "POST", path: "/v2/a/b/blobs/uploads/?digest=" + string(d), body: "other", status: 400}.do(t, s.URL)
	// Pieces.
	content = "abcdefghij"
	d = digest.FromString(content)
	res, _ := call{method: "POST", path: "/v2/a/b/blobs/uploads/", status: 202}.do(t, s.URL)
	at := res.Header.Get("Location")
	call{method: "PATCH", path: at, header: h{"Content-Range": "0-3"}, body: content[:4], status: 202, want: h{"Range": "0-3"}}.do(t, s.URL)
	call{method: "PATCH", path: at, header: h{"Content-Range": "5-7"}, body: content[5:8], status: 416, want: h{"Range": "0-3", "Location": at}}.do(t, s.URL)
	call{method: "PATCH", path: at, header: h{"Content-Range": "x"}, status: 400}.do(t, s.URL)
	call{method: "GET", path: at, status: 204, want: h{"Range": "0-3"}}.do(t, s.URL)
	call{method: "PATCH", path: at, body: content[4:8], status: 202, want: h{"Range": "0-7"}}.do(t, s.URL)
	call{method: "PUT", path: at + "?digest=sha256:x", status: 400}.do(t, s.URL)
	call{method: "PUT", path: at + "?digest=" + string(d), body: content[8:], status: 201, want: h{"Docker-Content-Digest": string(d)}}.do(t, s.URL)
	call{method: "GET", path: at, status: 404}.do(t, s.URL)
	// Wrong content, given up, not begun.
	res, _ = call{method: "POST", path: "/v2/a/b/blobs/uploads/", status: 202}.do(t, s.URL)
	call{method: "PUT", path: res.Header.Get("Location") + "?digest=" + string(d), body: "no", status: 400}.do(t, s.URL)
	res, _ = call{method: "POST", path: "/v2/a/b/blobs/uploads/", status: 202}.do(t, s.URL)
	call{method: "DELETE", path: res.Header.Get("Location"), status: 204}.do(t, s.URL)
	call{method: "PATCH", path: res.Header.Get("Location"), body: "x", status: 404}.do(t, s.URL)
	// From another repository.
	call{method: "POST", path: "/v2/c/blobs/uploads/?mount=" + string(d) + "&from=a/b", status: 201}.do(t, s.URL)
	call{method: "POST", path: "/v2/c/blobs/uploads/?from=a/b&mount=" + string(digest.FromString("none")), status: 202}.do(t, s.URL)

	// Manifests.
	desc := func(mediaType, content string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest.FromString(content), len(content))
	}
	manifest := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":` + desc("application/x", "0123456789") + `,"layers":[` + desc("text/plain", content) + `]}`
	md := digest.FromString(manifest)
	typ := h{"Content-Type": ocispec.MediaTypeImageManifest}
	call{method: "PUT", path: "/v2/a/b/manifests/" + string(md), header: typ, body: manifest, status: 201, want: h{"Docker-Content-Digest": string(md)}}.do(t, s.URL)
	if entries, _ := l.Entries(); len(entries) != 1 || entries[0].Annotations[ocispec.AnnotationRefName] != "" {
		t.Errorf("entries %+v, want one without a name", entries)
	}
	call{method: "PUT", path: "/v2/a/b/manifests/1", header: typ, body: manifest, status: 201}.do(t, s.URL)
	call{method: "PUT", path: "/v2/app/manifests/1", header: typ, body: manifest, status: 201}.do(t, s.URL)
	call{method: "PUT", path: "/v2/a/b/manifests/" + string(d), header: typ, body: manifest, status: 400}.do(t, s.URL)
	call{method: "PUT", path: "/v2/a/b/manifests/1", header: h{"Content-Type": ocispec.MediaTypeImageIndex}, body: manifest, status: 400}.do(t, s.URL)
	call{method: "PUT", path: "/v2/a/b/manifests/1", header: typ, body: strings.Replace(manifest, string(d), string(digest.FromString("none")), 1), status: 400}.do(t, s.URL)
	call{method: "PUT", path: "/v2/a/b/manifests/1", header: typ, body: strings.Repeat(" ", 4<<20+1), status: 413}.do(t, s.URL)
	call{method: "PUT", path: "/v2/a/b/manifests/-bad", header: typ, body: manifest, status: 404}.do(t, s.URL)
	var names []string
	entries, err := l.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Annotations[ocispec.AnnotationRefName])
	}
	if got := strings.Join(names, " "); got != "docker.io/a/b:1 docker.io/library/app:1" {
		t.Errorf("names %q", got)
	}

	// A referrer needs no name: its subject keeps it.
	note := strings.TrimSuffix(manifest, "}") + `,"artifactType":"application/x.note","subject":` + desc(ocispec.MediaTypeImageManifest, manifest) + "}"
	call{method: "PUT", path: "/v2/a/b/manifests/" + string(digest.FromString(note)), header: typ, body: note, status: 201, want: h{"OCI-Subject": string(md)}}.do(t, s.URL)
	_, body := call{method: "GET", path: "/v2/a/b/referrers/" + string(md) + "?artifactType=application/x.note", status: 200, want: h{"OCI-Filters-Applied": "artifactType"}}.do(t, s.URL)
	if !strings.Contains(string(body), string(digest.FromString(note))) {
		t.Errorf("referrers: %s", body)
	}
	_, body = call{method: "GET", path: "/v2/a/b/referrers/" + string(md) + "?artifactType=none", status: 200}.do(t, s.URL)
	if !strings.Contains(string(body), `"manifests":[]`) {
		t.Errorf("referrers: %s", body)
	}
	layouttest.Good(t, l)

	call{method: "DELETE", path: "/v2/a/b/manifests/1", status: 202}.do(t, s.URL)
	call{method: "GET", path: "/v2/a/b/manifests/1", status: 404}.do(t, s.URL)
	call{method: "GET", path: "/v2/app/manifests/1", status: 200}.do(t, s.URL)
	call{method: "DELETE", path: "/v2/a/b/manifests/1", status: 404}.do(t, s.URL)
	layouttest.Good(t, l)
}

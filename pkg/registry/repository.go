// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
)

// A Repository is one repository of a registry.
type Repository struct {
	c       *Client
	ref     image.Reference
	reg     name.Registry
	push    bool
	session *session
}

// Reference is the reference that the repository was asked for by.
func (r *Repository) Reference() image.Reference { return r.ref }

const documentTypes = ocispec.MediaTypeImageIndex + ", " + descriptor.DockerManifestList + ", " +
	ocispec.MediaTypeImageManifest + ", " + descriptor.DockerManifest

// do sends a request and wants one of the statuses.
func (r *Repository) do(req *http.Request, what string, want ...int) (*http.Response, error) {
	client, err := r.client(req.Context())
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		if c := context.Cause(req.Context()); c != nil {
			return nil, c
		}
		return nil, r.fail(what, err)
	}
	for _, s := range want {
		if res.StatusCode == s {
			return res, nil
		}
	}
	defer res.Body.Close()
	return nil, r.fail(what, statusError(res))
}

func (r *Repository) request(ctx context.Context, method string, u *url.URL, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		panic("registry: a URL made from a URL does not parse: " + err.Error())
	}
	return req
}

// Resolve returns the descriptor of a tag or digest. The registry says what a tag stands for; whatever is
// fetched by the descriptor is verified against it.
func (r *Repository) Resolve(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	// HEAD first: registries that ration pulls count GET.
	d, err := r.resolve(ctx, http.MethodHead, tag)
	var se *StatusError
	if errors.As(err, &se) && errors.Is(err, fault.ErrTryAgain) || errors.Is(err, fault.ErrUnverified) || context.Cause(ctx) != nil {
		return d, err
	}
	if err != nil { // a GET may do better, or has words about why
		d, err = r.resolve(ctx, http.MethodGet, tag)
	}
	if err != nil {
		return d, err
	}
	if want := digest.Digest(tag); strings.Contains(tag, ":") && d.Digest != want {
		return d, descriptor.Mismatch("registry %s: repository %s: asked for %s, got %s", r.ref.Host, r.ref.Repository, want, d.Digest)
	}
	return d, nil
}

func (r *Repository) resolve(ctx context.Context, method, tag string) (ocispec.Descriptor, error) {
	req := r.request(ctx, method, r.url("manifests", tag), nil)
	req.Header.Set("Accept", documentTypes)
	what := "manifest " + tag
	res, err := r.do(req, what, http.StatusOK)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer res.Body.Close()
	mediaType, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	d := ocispec.Descriptor{
		MediaType: strings.TrimSpace(mediaType),
		Digest:    digest.Digest(res.Header.Get("Docker-Content-Digest")),
		Size:      res.ContentLength,
	}
	if method == http.MethodHead {
		if d.Size < 0 || d.Digest.Validate() != nil || d.MediaType == "" {
			return d, errors.New("the answer to HEAD does not say enough")
		}
		return d, known(r, what, d)
	}
	data, err := io.ReadAll(io.LimitReader(watch(res.Body), descriptor.MaxDocumentBytes+1))
	if err != nil {
		return d, r.fail(what, err)
	}
	d.Size = int64(len(data))
	algorithm := digest.Canonical
	if strings.Contains(tag, ":") {
		d.Digest = digest.Digest(tag)
	}
	if d.Digest.Validate() == nil {
		algorithm = d.Digest.Algorithm()
	}
	if got := algorithm.FromBytes(data); d.Digest != "" && got != d.Digest {
		return d, descriptor.Mismatch("registry %s: repository %s: %s: content has digest %s, want %s", r.ref.Host, r.ref.Repository, what, got, d.Digest)
	} else {
		d.Digest = got
	}
	if d.MediaType == "" || d.MediaType == "application/json" {
		doc, err := descriptor.Parse("", data)
		if err != nil {
			return d, r.fail(what, err)
		}
		d.MediaType = doc.MediaType
	}
	return d, known(r, what, d)
}

func known(r *Repository, what string, d ocispec.Descriptor) error {
	if d.Size > descriptor.MaxDocumentBytes {
		return r.fail(what, descriptor.Mismatch("%d bytes, want at most %d", d.Size, descriptor.MaxDocumentBytes))
	}
	if !descriptor.IsIndex(d.MediaType) && !descriptor.IsManifest(d.MediaType) {
		if _, err := descriptor.Parse(d.MediaType, []byte(`{"schemaVersion":2}`)); err != nil {
			return r.fail(what, err) // Parse's sentences about old and unknown types
		}
	}
	return nil
}

// Fetch reads a document or blob; the caller verifies (descriptor.Verify).
func (r *Repository) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	body, _, err := r.FetchAt(ctx, d, 0)
	return body, err
}

// FetchAt reads a document or blob from offset on. A registry that does not know ranges starts at 0: the second
// result says where it starts.
func (r *Repository) FetchAt(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	if err := descriptor.Check(d); err != nil {
		return nil, 0, err
	}
	kind, what := "blobs", "blob "+string(d.Digest)
	if descriptor.IsIndex(d.MediaType) || descriptor.IsManifest(d.MediaType) {
		kind, what = "manifests", "manifest "+string(d.Digest)
	}
	req := r.request(ctx, http.MethodGet, r.url(kind, string(d.Digest)), nil)
	if kind == "manifests" {
		req.Header.Set("Accept", documentTypes)
		offset = 0
	}
	want := []int{http.StatusOK}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		want = append(want, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	res, err := r.do(req, what, want...)
	if err != nil {
		return nil, 0, err
	}
	switch res.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		res.Body.Close()
		return r.FetchAt(ctx, d, 0)
	case http.StatusOK:
		offset = 0
	default:
		var from int64
		if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != offset {
			res.Body.Close()
			return r.FetchAt(ctx, d, 0)
		}
	}
	if n := res.ContentLength; n >= 0 && n != d.Size-offset {
		res.Body.Close()
		return nil, 0, r.fail(what, descriptor.Mismatch("blob %s: the registry sends %d bytes, its descriptor says %d", d.Digest, n+offset, d.Size))
	}
	return watch(res.Body), offset, nil
}

// Exists says whether the repository has a document or blob.
func (r *Repository) Exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	if err := descriptor.Check(d); err != nil {
		return false, err
	}
	kind := "blobs"
	if descriptor.IsIndex(d.MediaType) || descriptor.IsManifest(d.MediaType) {
		kind = "manifests"
	}
	req := r.request(ctx, http.MethodHead, r.url(kind, string(d.Digest)), nil)
	req.Header.Set("Accept", documentTypes)
	res, err := r.do(req, "look for "+string(d.Digest), http.StatusOK)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	res.Body.Close()
	return true, nil
}

// Push stores a document or blob; open gives its content, from the start each time.
func (r *Repository) Push(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if err := descriptor.Check(d); err != nil {
		return err
	}
	if descriptor.IsIndex(d.MediaType) || descriptor.IsManifest(d.MediaType) {
		data, err := document(d, open)
		if err != nil {
			return err
		}
		return r.putManifest(ctx, string(d.Digest), d, data)
	}
	for n := 1; ; n++ {
		err := r.upload(ctx, d, open)
		var se *StatusError
		again := Passing(err) || errors.As(err, &se) && (passing(se.Status) || se.Status == http.StatusInternalServerError)
		if err == nil || !again || n == attempts {
			return err
		}
		pause := Pause(n)
		r.c.o.Explain("%v; again in %v", err, pause)
		if err := Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func document(d ocispec.Descriptor, open func() (io.ReadCloser, error)) ([]byte, error) {
	body, err := open()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return descriptor.ReadAll(d, body)
}

// Tag gives the document d, with the content data, a tag.
func (r *Repository) Tag(ctx context.Context, tag string, d ocispec.Descriptor, data []byte) error {
	return r.putManifest(ctx, tag, d, data)
}

func (r *Repository) putManifest(ctx context.Context, tag string, d ocispec.Descriptor, data []byte) error {
	req := r.request(ctx, http.MethodPut, r.url("manifests", tag), bytes.NewReader(data))
	req.Header.Set("Content-Type", d.MediaType)
	res, err := r.do(req, "put manifest "+tag, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return err
	}
	res.Body.Close()
	if got := res.Header.Get("Docker-Content-Digest"); got != "" && got != string(d.Digest) && strings.HasPrefix(got, d.Digest.Algorithm().String()+":") {
		return descriptor.Mismatch("registry %s: repository %s: manifest %s was stored as %s", r.ref.Host, r.ref.Repository, d.Digest, got)
	}
	return nil
}

// upload sends a blob in one piece (POST, then PUT).
func (r *Repository) upload(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	what := "upload blob " + string(d.Digest)
	start := r.url("blobs", "uploads", "")
	res, err := r.do(r.request(ctx, http.MethodPost, start, nil), what, http.StatusAccepted, http.StatusCreated)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode == http.StatusCreated {
		return nil
	}
	to, err := res.Request.URL.Parse(res.Header.Get("Location"))
	if err != nil || res.Header.Get("Location") == "" {
		return r.fail(what, fmt.Errorf("the registry names no place to upload to"))
	}
	// The transport adds credentials only for the registry's own host; any other place gets none.
	q := to.Query()
	q.Set("digest", string(d.Digest))
	to.RawQuery = q.Encode()
	body, err := open()
	if err != nil {
		return err
	}
	defer body.Close()
	req := r.request(ctx, http.MethodPut, to, io.NopCloser(body))
	req.ContentLength = d.Size
	if d.Size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err = r.do(req, what, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// Mount asks the registry to take a blob over from another of its repositories. False: it has to be uploaded.
func (r *Repository) Mount(ctx context.Context, d ocispec.Descriptor, from string) (bool, error) {
	u := r.url("blobs", "uploads", "")
	u.RawQuery = url.Values{"mount": {string(d.Digest)}, "from": {from}}.Encode()
	res, err := r.do(r.request(ctx, http.MethodPost, u, nil), "mount blob "+string(d.Digest), http.StatusCreated, http.StatusAccepted)
	if err != nil {
		return false, err
	}
	res.Body.Close()
	return res.StatusCode == http.StatusCreated, nil
}

// Delete removes a tag, or a manifest by its digest. Nothing there is fs.ErrNotExist.
func (r *Repository) Delete(ctx context.Context, tag string) error {
	res, err := r.do(r.request(ctx, http.MethodDelete, r.url("manifests", tag), nil), "delete manifest "+tag, http.StatusAccepted, http.StatusOK)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// maxListBytes bounds one page of a list.
const maxListBytes = 4 << 20

// Tags calls visit for every tag, in the registry's order.
func (r *Repository) Tags(ctx context.Context, visit func(tag string) error) error {
	at := r.url("tags", "list")
	for pages := 0; at != nil; pages++ {
		if pages == 10000 {
			return r.fail("list tags", errors.New("the list does not end"))
		}
		res, err := r.do(r.request(ctx, http.MethodGet, at, nil), "list tags", http.StatusOK)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(watch(res.Body), maxListBytes))
		res.Body.Close()
		var page struct{ Tags []string }
		if err == nil {
			err = json.Unmarshal(data, &page)
		}
		if err != nil {
			return r.fail("list tags", err)
		}
		for _, t := range page.Tags {
			if !validTag.MatchString(t) { // it goes to terminals and into command lines
				return r.fail("list tags", fmt.Errorf("found %q, want a tag", t))
			}
			if err := visit(t); err != nil {
				return err
			}
		}
		if at, err = next(res); err != nil {
			return r.fail("list tags", err)
		}
	}
	return nil
}

// next is the address of the next page (RFC 8288), which has to be on the same host.
func next(res *http.Response) (*url.URL, error) {
	for _, link := range strings.Split(res.Header.Get("Link"), ",") {
		ref, params, ok := strings.Cut(strings.TrimSpace(link), ">")
		if !ok || !strings.HasPrefix(ref, "<") || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		u, err := res.Request.URL.Parse(ref[1:])
		if err != nil {
			return nil, err
		}
		if u.Host != res.Request.URL.Host {
			return nil, errors.New("the next page is on host " + strconv.Quote(u.Host))
		}
		return u, nil
	}
	return nil, nil
}

// Referrers lists what refers to the document d; artifactType "" is all.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := descriptor.CheckDigest(d); err != nil {
		return nil, err
	}
	res, err := r.do(r.request(ctx, http.MethodGet, r.url("referrers", string(d)), nil), "list referrers", http.StatusOK, http.StatusNotFound)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, nil // the registry does not know referrers
	}
	data, err := io.ReadAll(io.LimitReader(watch(res.Body), descriptor.MaxDocumentBytes+1))
	if err != nil {
		return nil, r.fail("list referrers", err)
	}
	doc, err := descriptor.Parse(ocispec.MediaTypeImageIndex, data)
	if err != nil {
		return nil, r.fail("list referrers", err)
	}
	var found []ocispec.Descriptor
	for _, m := range doc.Index.Manifests {
		if artifactType == "" || m.ArtifactType == artifactType {
			found = append(found, m)
		}
	}
	return found, nil
}

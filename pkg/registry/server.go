// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/layout"
)

// ServerOptions are those of a Server; the zero value serves pulls only.
type ServerOptions struct {
	ReadWrite bool // take pushes
	// Explain, if not nil, is told about requests.
	Explain func(format string, args ...any)
}

// A Server is an image layout as a registry (distribution-spec 1.1: pull, and with ReadWrite push, content
// discovery and content management). A layout is one room: what is in it can be had by digest from every
// repository. It asks nobody for credentials; who may reach it is decided by the address it listens on.
type Server struct {
	l *layout.Layout
	o ServerOptions

	mu      sync.Mutex
	w       *layout.Writer // held while blobs may be waiting for a manifest
	used    time.Time      // of w
	busy    int            // requests that are writing
	uploads map[string]*upload
	stop    chan struct{}
}

// NewServer makes the handler for a layout. Close it.
func NewServer(l *layout.Layout, o ServerOptions) *Server {
	if o.Explain == nil {
		o.Explain = func(string, ...any) {}
	}
	s := &Server{l: l, o: o, uploads: map[string]*upload{}, stop: make(chan struct{})}
	go s.sweep()
	return s
}

// Close gives up uploads that have not ended.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop:
		return
	default:
		close(s.stop)
	}
	for id, u := range s.uploads {
		u.pending.Abort()
		delete(s.uploads, id)
	}
	if s.w != nil {
		s.w.Close()
		s.w = nil
	}
}

const (
	linger    = 30 * time.Second // that blobs wait for their manifest, protected from gc
	uploadAge = time.Hour        // after which an upload from which nothing comes is given up
)

// writer returns the writer and keeps it for a while: a push is many requests, and gc must not come between
// a blob and the manifest that names it. done ends its use by this request.
func (s *Server) writer() (w *layout.Writer, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		if s.w, err = s.l.Begin(); err != nil {
			return nil, nil, err
		}
	}
	s.busy++
	return s.w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy--
		s.used = time.Now()
	}, nil
}

// sweep lets gc in when nobody has pushed for a while.
func (s *Server) sweep() {
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		s.mu.Lock()
		for id, u := range s.uploads {
			if u.mu.TryLock() {
				if time.Since(u.used) > uploadAge {
					u.pending.Abort()
					delete(s.uploads, id)
				}
				u.mu.Unlock()
			}
		}
		if s.w != nil && s.busy == 0 && len(s.uploads) == 0 && time.Since(s.used) > linger {
			s.w.Close()
			s.w = nil
		}
		s.mu.Unlock()
	}
}

// problem is an answer that is no success, in the words of the distribution-spec.
type problem struct {
	status int
	code   string
	text   string
}

func (p *problem) Error() string { return p.text }

func refuse(status int, code, format string, args ...any) error {
	return &problem{status, code, fmt.Sprintf(format, args...)}
}

var (
	validRepository = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	validTag        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	err := s.route(w, r)
	s.o.Explain("%s %s: %v", r.Method, r.URL.Path, outcome(err))
	if err == nil {
		return
	}
	var p *problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, fs.ErrNotExist):
		p = &problem{http.StatusNotFound, "NAME_UNKNOWN", err.Error()}
	case errors.Is(err, layout.ErrDigestMismatch):
		p = &problem{http.StatusInternalServerError, "UNKNOWN", "the image layout is damaged: " + err.Error()}
	default:
		p = &problem{http.StatusInternalServerError, "UNKNOWN", err.Error()}
	}
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead {
		json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": p.code, "message": p.text}}})
	}
}

func outcome(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}

// route finds what a path means. Repositories have slashes, so that paths are read from both ends.
func (s *Server) route(w http.ResponseWriter, r *http.Request) error {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2")
	if !ok {
		return refuse(http.StatusNotFound, "UNSUPPORTED", "want a path below /v2/")
	}
	switch rest {
	case "", "/":
		if err := methods(w, r, http.MethodGet, http.MethodHead); err != nil {
			return err
		}
		return answer(w, r, "application/json", []byte("{}"))
	case "/_catalog":
		return s.list(w, r, "repositories", nil, func(e []ocispec.Descriptor) []string { return repositoriesOf(e) })
	}
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	n := len(parts)
	at := func(i int) string { // from the end
		if n-i < 0 {
			return ""
		}
		return parts[n-i]
	}
	repository := func(drop int) (string, error) {
		if n-drop < 1 {
			return "", refuse(http.StatusNotFound, "NAME_INVALID", "no repository in the path")
		}
		name := strings.Join(parts[:n-drop], "/")
		if len(name) > 255 || !validRepository.MatchString(name) {
			return "", refuse(http.StatusNotFound, "NAME_INVALID", "repository %q: want lower-case words joined by . _ - or /", name)
		}
		return name, nil
	}
	switch {
	case at(2) == "tags" && at(1) == "list":
		repo, err := repository(2)
		if err != nil {
			return err
		}
		return s.list(w, r, "tags", &repo, func(e []ocispec.Descriptor) []string { return tagsOf(e, repo) })
	case at(2) == "manifests":
		repo, err := repository(2)
		if err != nil {
			return err
		}
		return s.manifest(w, r, repo, at(1))
	case at(2) == "referrers":
		if _, err := repository(2); err != nil {
			return err
		}
		return s.referrers(w, r, digest.Digest(at(1)))
	case at(3) == "blobs" && at(2) == "uploads":
		repo, err := repository(3)
		if err != nil {
			return err
		}
		return s.upload(w, r, repo, at(1))
	case at(2) == "blobs" && at(1) == "uploads":
		repo, err := repository(2)
		if err != nil {
			return err
		}
		return s.upload(w, r, repo, "")
	case at(2) == "blobs":
		if _, err := repository(2); err != nil {
			return err
		}
		return s.blob(w, r, digest.Digest(at(1)))
	}
	return refuse(http.StatusNotFound, "UNSUPPORTED", "no such path in the distribution-spec")
}

// methods refuses all but some methods.
func methods(w http.ResponseWriter, r *http.Request, allowed ...string) error {
	for _, m := range allowed {
		if r.Method == m {
			return nil
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "%s is not for this", r.Method)
}

func (s *Server) mayWrite(w http.ResponseWriter, allowed ...string) error {
	if s.o.ReadWrite {
		return nil
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
}

func answer(w http.ResponseWriter, r *http.Request, contentType string, data []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		w.Write(data) // a client that went away is its own business
	}
	return nil
}

// list answers with a sorted list, cut by n and last.
func (s *Server) list(w http.ResponseWriter, r *http.Request, key string, repo *string, of func([]ocispec.Descriptor) []string) error {
	if err := methods(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	entries, err := s.l.Entries()
	if err != nil {
		return err
	}
	all := of(entries)
	if repo != nil && len(all) == 0 {
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository %s has no tags", *repo)
	}
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		i := 0
		for i < len(all) && all[i] <= last {
			i++
		}
		all = all[i:]
	}
	if n := q.Get("n"); n != "" {
		max, err := strconv.Atoi(n)
		if err != nil || max < 0 {
			return refuse(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n=%q: want a number", n)
		}
		if max < len(all) {
			if all = all[:max]; max > 0 {
				next := url.Values{"n": {n}, "last": {all[max-1]}}
				w.Header().Set("Link", fmt.Sprintf("<%s?%s>; rel=\"next\"", r.URL.EscapedPath(), next.Encode()))
			}
		}
	}
	if all == nil {
		all = []string{}
	}
	doc := map[string]any{key: all}
	if repo != nil {
		doc["name"] = *repo
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return answer(w, r, "application/json", data)
}

// blob answers with a blob, or a range of it.
func (s *Server) blob(w http.ResponseWriter, r *http.Request, d digest.Digest) error {
	if r.Method == http.MethodDelete {
		return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "blobs are deleted by ctr-fetch gc, when nothing needs them")
	}
	if err := methods(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if descriptor.CheckDigest(d) != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "digest %q", string(d))
	}
	f, err := s.l.Open(d)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "BLOB_UNKNOWN", "blob %s", d)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Etag", `"`+string(d)+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// referrers answers with an index of what has the document as its subject.
func (s *Server) referrers(w http.ResponseWriter, r *http.Request, d digest.Digest) error {
	if err := methods(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if descriptor.CheckDigest(d) != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "digest %q", string(d))
	}
	all, err := s.l.Referrers(r.Context(), d)
	if err != nil {
		return err
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	want := r.URL.Query().Get("artifactType")
	for _, m := range all {
		if want == "" || m.ArtifactType == want {
			index.Manifests = append(index.Manifests, m)
		}
	}
	if want != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	data, err := layout.EncodeJSON(index)
	if err != nil {
		return err
	}
	return answer(w, r, ocispec.MediaTypeImageIndex, data)
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/layout"
)

// An upload is a blob that comes in pieces.
type upload struct {
	mu      sync.Mutex
	pending *layout.Pending
	used    time.Time
	ended   bool
}

const maxUploads = 1024

// upload serves /v2/REPOSITORY/blobs/uploads/[ID].
func (s *Server) upload(w http.ResponseWriter, r *http.Request, repo, id string) error {
	if err := s.mayWrite(w); err != nil {
		return err
	}
	if id == "" {
		if err := methods(w, r, http.MethodPost); err != nil {
			return err
		}
		return s.startUpload(w, r, repo)
	}
	if err := methods(w, r, http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	s.mu.Lock()
	u := s.uploads[id]
	s.mu.Unlock()
	if u == nil {
		return refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload %q", id)
	}
	_, done, err := s.writer() // it is there: the upload holds it
	if err != nil {
		return err
	}
	defer done()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload %q", id)
	}
	u.used = time.Now()
	switch r.Method {
	case http.MethodGet:
		s.progress(w, repo, id, u)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodDelete:
		s.end(id, u)
		u.pending.Abort()
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPatch:
		if err := s.append(w, r, repo, id, u); err != nil {
			return err
		}
		s.progress(w, repo, id, u)
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	want := digest.Digest(r.URL.Query().Get("digest"))
	if descriptor.CheckDigest(want) != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "digest %q", string(want))
	}
	if err := s.append(w, r, repo, id, u); err != nil {
		return err
	}
	s.end(id, u)
	return s.commit(w, repo, u.pending, want)
}

func (s *Server) end(id string, u *upload) {
	u.ended = true
	s.mu.Lock()
	delete(s.uploads, id)
	s.mu.Unlock()
}

func (s *Server) startUpload(w http.ResponseWriter, r *http.Request, repo string) error {
	q := r.URL.Query()
	writer, done, err := s.writer()
	if err != nil {
		return err
	}
	defer done()
	if d := digest.Digest(q.Get("mount")); d != "" {
		if descriptor.CheckDigest(d) != nil {
			return refuse(http.StatusBadRequest, "DIGEST_INVALID", "digest %q", string(d))
		}
		if s.l.Has(d) { // all repositories are one room
			s.created(w, repo, d)
			return nil
		}
	}
	whole := digest.Digest(q.Get("digest"))
	if whole != "" && descriptor.CheckDigest(whole) != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "digest %q", string(whole))
	}
	p, err := writer.Pending()
	if err != nil {
		return err
	}
	if whole != "" {
		defer p.Abort()
		if _, err := io.Copy(p, r.Body); err != nil {
			return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "%v", err)
		}
		return s.commit(w, repo, p, whole)
	}
	id := strings.ToLower(rand.Text())
	u := &upload{pending: p, used: time.Now()}
	s.mu.Lock()
	full := len(s.uploads) >= maxUploads
	if !full {
		s.uploads[id] = u
	}
	s.mu.Unlock()
	if full {
		p.Abort()
		return refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", "%d uploads at the same time", maxUploads)
	}
	s.progress(w, repo, id, u)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// append adds the body, which has to start where the upload ends. A body that breaks off counts as far as it came.
func (s *Server) append(w http.ResponseWriter, r *http.Request, repo, id string, u *upload) error {
	if cr := r.Header.Get("Content-Range"); cr != "" {
		var from, to int64
		if n, err := fmt.Sscanf(strings.TrimPrefix(cr, "bytes "), "%d-%d", &from, &to); n != 2 || err != nil || to < from {
			return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "Content-Range %q: want FIRST-LAST", cr)
		}
		if from != u.pending.Size() || r.ContentLength >= 0 && r.ContentLength != to-from+1 {
			s.progress(w, repo, id, u)
			return refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "Content-Range %q: the upload has %d bytes", cr, u.pending.Size())
		}
	}
	if _, err := io.Copy(u.pending, r.Body); err != nil {
		return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "%v", err)
	}
	return nil
}

// progress says where the upload goes on.
func (s *Server) progress(w http.ResponseWriter, repo, id string, u *upload) {
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/uploads/%s", repo, id))
	w.Header().Set("Docker-Upload-Uuid", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.pending.Size()-1, 0)))
}

func (s *Server) commit(w http.ResponseWriter, repo string, p *layout.Pending, want digest.Digest) error {
	if err := p.Commit(want); err != nil {
		if errors.Is(err, layout.ErrDigestMismatch) {
			return refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
		}
		return err
	}
	s.created(w, repo, want)
	return nil
}

func (s *Server) created(w http.ResponseWriter, repo string, d digest.Digest) {
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/%s", repo, d))
	w.Header().Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/image"
)

// manifest serves /v2/REPOSITORY/manifests/TAG-OR-DIGEST.
func (s *Server) manifest(w http.ResponseWriter, r *http.Request, repo, what string) error {
	reading := []string{http.MethodGet, http.MethodHead}
	byDigest := strings.Contains(what, ":")
	if byDigest && descriptor.CheckDigest(digest.Digest(what)) != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "digest %q", what)
	}
	if !byDigest && !validTag.MatchString(what) {
		return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "tag %q is none", what)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return s.getManifest(w, r, repo, what, byDigest)
	case http.MethodPut:
		if err := s.mayWrite(w, reading...); err != nil {
			return err
		}
		return s.putManifest(w, r, repo, what, byDigest)
	case http.MethodDelete:
		if err := s.mayWrite(w, reading...); err != nil {
			return err
		}
		return s.deleteManifest(w, r, repo, what, byDigest)
	}
	return methods(w, r, append(reading, http.MethodPut, http.MethodDelete)...)
}

// find finds a manifest by tag, or any document of the layout by digest.
func (s *Server) find(r *http.Request, repo, what string, byDigest bool) (ocispec.Descriptor, error) {
	unknown := refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "repository %s: no manifest %s", repo, what)
	if byDigest {
		d, err := s.l.Resolve(r.Context(), what)
		if errors.Is(err, fs.ErrNotExist) {
			err = unknown
		}
		return d, err
	}
	entries, err := s.l.Entries()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, ok := lookUp(entries, repo, what)
	if !ok {
		return d, unknown
	}
	return d, nil
}

func (s *Server) getManifest(w http.ResponseWriter, r *http.Request, repo, what string, byDigest bool) error {
	d, err := s.find(r, repo, what, byDigest)
	if err != nil {
		return err
	}
	data, err := s.l.ReadAll(r.Context(), d)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "repository %s: manifest %s is named but not there", repo, what)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Docker-Content-Digest", string(d.Digest))
	w.Header().Set("Etag", `"`+string(d.Digest)+`"`)
	return answer(w, r, d.MediaType, data)
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, repo, what string, byDigest bool) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, descriptor.MaxDocumentBytes+1))
	if err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "%v", err)
	}
	if len(data) > descriptor.MaxDocumentBytes {
		return refuse(http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "more than %d bytes", descriptor.MaxDocumentBytes)
	}
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	doc, err := descriptor.Parse(strings.TrimSpace(mediaType), data)
	if err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "%v", err)
	}
	d := ocispec.Descriptor{MediaType: doc.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if byDigest {
		d.Digest = digest.Digest(what)
		if d.Digest != d.Digest.Algorithm().FromBytes(data) {
			return refuse(http.StatusBadRequest, "DIGEST_INVALID", "the content is not that of %s", what)
		}
	}
	writer, done, err := s.writer()
	if err != nil {
		return err
	}
	defer done()
	// A document in the layout promises that what it consists of is there.
	for _, c := range doc.Children() {
		if have, err := s.l.Exists(r.Context(), c); err != nil || !have && len(c.URLs) == 0 {
			return refuse(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "%s %s of %d bytes is not there", c.MediaType, c.Digest, c.Size)
		}
	}
	if err := writer.PutBytes(r.Context(), d, data); err != nil {
		return err
	}
	name := ""
	if !byDigest {
		if name, err = s.nameFor(repo, what); err != nil {
			return refuse(http.StatusBadRequest, "NAME_INVALID", "%v", err)
		}
	}
	// Without a name the document needs an entry all the same, or gc would take it, unless its subject keeps it.
	if subject := doc.Subject(); name != "" || subject == nil || !s.l.Has(subject.Digest) {
		if err := writer.Tag(name, d); err != nil {
			return err
		}
	}
	var kept []digest.Digest // that came before, by digest, and got entries of their own
	if name != "" {
		kept = append(kept, d.Digest)
	}
	if doc.Index != nil {
		for _, m := range doc.Index.Manifests {
			kept = append(kept, m.Digest)
		}
	}
	if err := s.l.DropUnnamed(kept); err != nil {
		return err
	}
	if subject := doc.Subject(); subject != nil {
		w.Header().Set("OCI-Subject", string(subject.Digest))
	}
	w.Header().Set("Docker-Content-Digest", string(d.Digest))
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/manifests/%s", repo, d.Digest))
	w.WriteHeader(http.StatusCreated)
	return nil
}

// nameFor is the name that a pushed tag gets in the layout: the literal one where that exists, as other tools
// write it, else the full reference.
func (s *Server) nameFor(repo, tag string) (string, error) {
	entries, err := s.l.Entries()
	if err != nil {
		return "", err
	}
	full, err := image.Normalize(repo + ":" + tag)
	if err != nil {
		return "", err
	}
	literal := false
	for _, e := range entries {
		switch preference(e.Annotations[ocispec.AnnotationRefName], repo, tag) {
		case 0:
			return full, nil
		case 1:
			literal = true
		}
	}
	if literal {
		return repo + ":" + tag, nil
	}
	return full, nil
}

func (s *Server) deleteManifest(w http.ResponseWriter, r *http.Request, repo, what string, byDigest bool) error {
	d, err := s.find(r, repo, what, byDigest)
	if err != nil {
		return err
	}
	if byDigest {
		entries, err := s.l.Entries()
		if err != nil {
			return err
		}
		for _, name := range namesOf(entries, repo, d.Digest) {
			if name == "" {
				err = s.l.DropUnnamed([]digest.Digest{d.Digest})
			} else {
				err = s.l.Untag(name)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		s.release()
		if err := s.l.Drop(r.Context(), d.Digest); err != nil {
			return err
		}
	} else if err := s.l.Untag(d.Annotations[ocispec.AnnotationRefName]); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// release gives back the writer if nobody is pushing, so that something can be removed.
func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil && s.busy == 0 && len(s.uploads) == 0 {
		s.w.Close()
		s.w = nil
	}
}

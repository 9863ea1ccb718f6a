// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// A StatusError is an answer of the registry that was not the one wanted. The registry's own words are quoted.
type StatusError struct {
	Status int    // HTTP
	Code   string // of the distribution-spec, such as MANIFEST_UNKNOWN; may be empty
	Text   string // the registry's message; may be empty
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Text != "" {
		s += fmt.Sprintf(" %q", e.Text)
	}
	return s
}

// Is makes statuses the kinds of failure that callers branch on.
func (e *StatusError) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Status == http.StatusNotFound
	case fs.ErrPermission:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	case fault.ErrTryAgain:
		return e.Status == http.StatusTooManyRequests || e.Status >= 500
	}
	return false
}

const maxErrorBytes = 64 << 10

// statusError reads the answer's error document, if it is one.
func statusError(res *http.Response) error {
	e := &StatusError{Status: res.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes)) // only words: what is missing is missing
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &doc) == nil && len(doc.Errors) > 0 {
		e.Code, e.Text = cut(doc.Errors[0].Code, 60), cut(doc.Errors[0].Message, 300)
	}
	return e
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// fail adds the registry, the repository and what was tried, and the kind of failure. URLs are left out: their
// queries may hold secrets.
func (r *Repository) fail(what string, err error) error {
	var te *transport.Error
	if errors.As(err, &te) {
		s := &StatusError{Status: te.StatusCode}
		if len(te.Errors) > 0 {
			s.Code, s.Text = cut(string(te.Errors[0].Code), 60), cut(te.Errors[0].Message, 300)
		}
		err = s
	}
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	var ne net.Error
	var oe *net.OpError
	if errors.As(err, &ne) || errors.As(err, &oe) || Passing(err) {
		err = fault.As(fault.ErrTryAgain, err)
	}
	wrapped := fmt.Errorf("registry %s: repository %s: %s: %w", r.ref.Host, r.ref.Repository, what, err)
	var se *StatusError
	if errors.As(err, &se) && (se.Status == http.StatusUnauthorized || se.Status == http.StatusForbidden) {
		return fault.Hint(wrapped, "credentials are read from $DOCKER_CONFIG/config.json and containers' auth.json: docker login %s, or podman login %s",
			r.ref.Host, r.ref.Host)
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return fault.Hint(wrapped, "the registry speaks plain http: --insecure allows it")
	}
	return wrapped
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/image"
)

type never struct{ t *testing.T }

func (n never) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("a request went to %s", r.URL.Host)
	return nil, errors.New("no")
}

// Plain http goes to this machine only, unless asked for (CVE-2019-10214).
func TestPlainHTTP(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "a.localhost": true, "127.0.0.1": true, "127.8.9.1": true, "::1": true, "LOCALHOST.": true,
		"10.0.0.1": false, "192.168.1.1": false, "example.com": false, "localhost.example.com": false, "0.0.0.0": false} {
		if got := loopback(host); got != want {
			t.Errorf("loopback %s: %v, want %v", host, got, want)
		}
	}
	g := &guard{next: never{t}}
	for _, u := range []string{"http://10.0.0.1:5000/v2/", "http://example.com/v2/", "http://169.254.169.254/token"} {
		r := httptest.NewRequest("GET", u, nil)
		if _, err := g.RoundTrip(r); err == nil || !strings.Contains(err.Error(), "plain http") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

func repository(t *testing.T, s *httptest.Server, keys authn.Keychain) *Repository {
	t.Helper()
	ref, err := image.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewClient(Options{Keychain: keys}).Repository(ref, true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type static struct{ authn.AuthConfig }

func (s static) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(s.AuthConfig), nil
}

const secret = "s3cr3t-password"

// Credentials go to the registry, not to where it sends us (CVE-2020-15157), nor into messages.
func TestCredentialsStayHome(t *testing.T) {
	content := "content"
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(content), Size: int64(len(content))}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("credentials went elsewhere: %s %s", r.Method, r.URL)
		}
		io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusCreated)
			return
		}
		io.WriteString(w, content)
	}))
	defer elsewhere.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "u" || pass != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch {
		case strings.Contains(r.URL.Path, "/uploads/"):
			w.Header().Set("Location", elsewhere.URL+"/upload?x=1")
			w.WriteHeader(http.StatusAccepted)
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, elsewhere.URL+"/blob?signature="+secret, http.StatusTemporaryRedirect)
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"no\u001b[31m"}]}`)
		}
	}))
	defer s.Close()
	r := repository(t, s, static{authn.AuthConfig{Username: "u", Password: secret}})
	body, err := r.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err != nil || string(got) != content {
		t.Errorf("%q, %v", got, err)
	}
	body.Close()
	if err := r.Push(t.Context(), d, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }); err != nil {
		t.Error(err)
	}
	_, err = r.Resolve(t.Context(), "1")
	if !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "403 Forbidden DENIED") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("resolve: %v", err)
	}
	elsewhere.Close()
	if _, err = r.Fetch(t.Context(), d); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("fetch: %v", err)
	}
}

func TestWrongPassword(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	r := repository(t, s, static{authn.AuthConfig{Username: "u", Password: secret}})
	if _, err := r.Resolve(t.Context(), "1"); !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), secret) {
		t.Errorf("resolve: %v", err)
	}
}

// A token server gives a token for the scope, and the token goes with every request.
func TestToken(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			if got := r.URL.Query().Get("scope"); got != "repository:app:push,pull" {
				t.Errorf("scope %q", got)
			}
			if _, pass, _ := r.BasicAuth(); pass != secret {
				t.Error("the token server got no password")
			}
			io.WriteString(w, `{"token":"tok"}`)
			return
		}
		if r.Header.Get("Authorization") != "Bearer tok" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="s",scope="repository:app:push,pull"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, `{"name":"app","tags":["1"]}`)
	}))
	defer s.Close()
	r := repository(t, s, static{authn.AuthConfig{Username: "u", Password: secret}})
	n := 0
	if err := r.Tags(t.Context(), func(string) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d tags, %v", n, err)
	}
}

func TestRetry(t *testing.T) {
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tags/list") && n.Add(1) < 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		io.WriteString(w, `{"tags":["1"]}`)
	}))
	defer s.Close()
	if err := repository(t, s, static{}).Tags(t.Context(), func(string) error { return nil }); err != nil || n.Load() != 3 {
		t.Errorf("%d requests, %v", n.Load(), err)
	}
}

// What a registry says is not believed without limits.
func TestHostileRegistry(t *testing.T) {
	for what, handler := range map[string]http.HandlerFunc{
		"an endless manifest": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			for range 5 << 10 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		},
		"another digest than asked for": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", string(digest.FromString("x")))
			io.WriteString(w, "y")
		},
		"a digest that is a path": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Docker-Content-Digest", "sha256:../../x")
			io.WriteString(w, "<html>")
		},
		"a manifest of the year 2014": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
			w.Header().Set("Docker-Content-Digest", string(digest.FromString("x")))
			io.WriteString(w, "x")
		},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			if r.Method == http.MethodHead && what != "a manifest of the year 2014" {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			handler(w, r)
		}))
		d, err := repository(t, s, static{}).Resolve(t.Context(), "1")
		if err == nil {
			t.Errorf("%s: %+v", what, d)
		}
		t.Log(err)
		s.Close()
	}
}

// A server that gives a byte a second is not waited for.
func TestTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			for {
				if _, err := w.Write([]byte{0}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		if n, err := io.Copy(io.Discard, watch(r)); !errors.Is(err, errStalled) {
			t.Errorf("%d bytes, %v", n, err)
		}
		time.Sleep(2 * time.Second) // the writer ends
	})
}

// What a server calls a tag is printed: it has to be one.
func TestTagsAreTags(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"tags":["1","\u001b[31m"]}`)
	}))
	defer s.Close()
	if err := repository(t, s, static{}).Tags(t.Context(), func(string) error { return nil }); err == nil || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %v", err)
	}
}

func TestCredentialFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", filepath.Join(dir, "docker"))
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "xdg"))
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	// base64 of user:password pairs
	write("docker/config.json", `{"auths":{"a.example":{"auth":"YTpkb2NrZXI="},"https://index.docker.io/v1/":{"auth":"aHViOmh1Yg=="}},"credHelpers":{"h.example":"ctrtest","broken.example":"ctrnone"}}`)
	write("run/containers/auth.json", `{"auths":{"a.example":{"auth":"YTpydW4="},"b.example/team":{"auth":"YjpydW4="},"b.example":{"auth":"YjphbGw="}}}`)
	write("xdg/containers/auth.json", `{"auths":{"c.example":{"auth":"Yzp4ZGc="}}}`)
	write("bin/docker-credential-ctrtest", "#!/bin/sh\nread url\necho \"{\\\"Username\\\":\\\"h\\\",\\\"Secret\\\":\\\"$url\\\"}\"\n")
	look := func(repo string) string {
		t.Helper()
		n, err := name.NewRepository(repo)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Credentials().Resolve(n)
		if err != nil {
			return "error"
		}
		c, err := a.Authorization()
		if err != nil {
			t.Fatal(err)
		}
		return c.Password
	}
	for repo, want := range map[string]string{"a.example/x": "docker", "b.example/team/x": "run", "b.example/teams/x": "all", "c.example/x": "xdg", "d.example/x": "",
		"docker.io/library/x": "hub", "h.example/x": "h.example", "broken.example/x": "error"} {
		if got := look(repo); got != want {
			t.Errorf("%s: %q, want %q", repo, got, want)
		}
	}
	write("explicit.json", `{"auths":{"a.example":{"auth":"YTpleHBsaWNpdA=="}}}`)
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "explicit.json"))
	if got := look("a.example/x"); got != "explicit" {
		t.Errorf("REGISTRY_AUTH_FILE: %q", got)
	}
	write("explicit.json", `{`)
	if got := look("a.example/x"); got != "error" {
		t.Errorf("a broken file: %q", got)
	}
}

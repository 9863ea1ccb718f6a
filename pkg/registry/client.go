// SPDX-License-Identifier: Apache-2.0

// Package registry speaks the OCI distribution protocol: a client for one repository, and the server of
// "ctr-push serve". The client leaves authentication to go-containerregistry's transport and adds resuming,
// retries and limits.
//
//	c := registry.NewClient(registry.Options{})
//	repo, err := c.Repository(ref)
//	d, err := repo.Resolve(ctx, "latest")
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
)

// Options are those of a Client; the zero value is right for most.
type Options struct {
	// Insecure allows plain http and certificates that do not verify. Registries on loopback may speak http
	// without it.
	Insecure bool
	// Keychain finds credentials; nil is [Credentials].
	Keychain authn.Keychain
	// UserAgent is sent in requests; empty is "ctr".
	UserAgent string
	// Explain, if not nil, is told about retries.
	Explain func(format string, args ...any)
}

// A Client talks to registries. It may be used by any number of goroutines.
type Client struct {
	o    Options
	base http.RoundTripper

	mu    sync.Mutex
	repos map[string]*session
}

// session is the authenticated transport for one repository and set of rights.
type session struct {
	once sync.Once
	rt   http.RoundTripper
	err  error
}

// NewClient makes a client.
func NewClient(o Options) *Client {
	if o.Keychain == nil {
		o.Keychain = Credentials()
	}
	if o.UserAgent == "" {
		o.UserAgent = "ctr"
	}
	if o.Explain == nil {
		o.Explain = func(string, ...any) {}
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    20 * time.Second,
		ResponseHeaderTimeout:  2 * time.Minute,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 128 << 10,
		DisableCompression:     true, // digests are about the bytes as they are stored
	}
	if o.Insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // asked for by --insecure
	}
	return &Client{
		o:     o,
		base:  transport.NewUserAgent(&retry{next: &guard{next: t, insecure: o.Insecure}, explain: o.Explain}, o.UserAgent),
		repos: map[string]*session{},
	}
}

// guard refuses plain http where nobody allowed it, whoever wants it: a fall-back, a redirect, a token server.
type guard struct {
	next     http.RoundTripper
	insecure bool
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !g.insecure && !loopback(r.URL.Hostname()) {
		return nil, fault.Hint(fmt.Errorf("plain http to %s is not allowed", r.URL.Host), "--insecure allows it")
	}
	return g.next.RoundTrip(r)
}

// loopback says whether a host name can only mean this machine.
func loopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip := net.ParseIP(strings.Trim(host, "[]")); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Repository returns the repository of a reference. push asks for the right to write.
func (c *Client) Repository(ref image.Reference, push bool) (*Repository, error) {
	var opts []name.Option
	u, err := url.Parse("//" + ref.Host)
	if err != nil {
		return nil, fault.Usagef("registry %q: %v", ref.Host, err)
	}
	if c.o.Insecure || loopback(u.Hostname()) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(ref.Host, opts...)
	if err != nil {
		return nil, fault.Usagef("registry %q: %v", ref.Host, err)
	}
	key := ref.Host + "/" + ref.Repository
	if push {
		key += " push"
	}
	c.mu.Lock()
	s := c.repos[key]
	if s == nil {
		s = &session{}
		c.repos[key] = s
	}
	c.mu.Unlock()
	return &Repository{c: c, ref: ref, reg: reg, push: push, session: s}, nil
}

// client is an http.Client that is logged in, which happens once.
func (r *Repository) client(ctx context.Context) (*http.Client, error) {
	s := r.session
	s.once.Do(func() {
		repo := r.reg.Repo(r.ref.Repository)
		auth, err := r.c.o.Keychain.Resolve(repo)
		if err != nil {
			s.err = fmt.Errorf("credentials for %s: %w", r.ref.Host, err)
			return
		}
		scope := transport.PullScope
		if r.push {
			scope = transport.PushScope
		}
		s.rt, err = transport.NewWithContext(ctx, r.reg, auth, r.c.base, []string{repo.Scope(scope)})
		if err != nil {
			s.err = r.fail("connect", err)
		}
	})
	if s.err != nil {
		return nil, s.err
	}
	return &http.Client{Transport: s.rt, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" && !r.c.o.Insecure {
			return fmt.Errorf("redirect from https to %s", req.URL.Scheme)
		}
		return nil
	}}, nil
}

// url is the address of something in the repository. The scheme is put right by the transport.
func (r *Repository) url(parts ...string) *url.URL {
	return &url.URL{Scheme: r.reg.Scheme(), Host: r.reg.RegistryStr(), Path: "/v2/" + r.ref.Repository + "/" + strings.Join(parts, "/")}
}

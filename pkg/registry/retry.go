// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	attempts   = 5                // of one request, or of one blob
	firstPause = time.Second / 4  // doubled each time
	longest    = 60 * time.Second // that a Retry-After is obeyed
)

// retry repeats requests without a body that failed in a way that may pass.
type retry struct {
	next    http.RoundTripper
	explain func(format string, args ...any)
}

func (t *retry) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		return t.next.RoundTrip(r)
	}
	for n := 1; ; n++ {
		res, err := t.next.RoundTrip(r)
		if n == attempts || err == nil && !passing(res.StatusCode) || err != nil && !Passing(err) {
			return res, err
		}
		pause := Pause(n)
		if err == nil {
			if s, e := strconv.Atoi(res.Header.Get("Retry-After")); e == nil && s >= 0 {
				if pause = time.Duration(s) * time.Second; pause > longest {
					return res, nil
				}
			}
			io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
			res.Body.Close()
			t.explain("%s %s: %s; again in %v", r.Method, r.URL.Redacted(), res.Status, pause)
		} else {
			t.explain("%s %s: %v; again in %v", r.Method, r.URL.Redacted(), err, pause)
		}
		if err := Sleep(r.Context(), pause); err != nil {
			return nil, err
		}
	}
}

// passing are statuses after which the same request may succeed.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Passing says whether an error of the network may pass: a connection that broke, a time-out. A connection
// that was refused is not, nor is a name that does not exist.
func Passing(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout
	}
	var ne net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, errStalled) || errors.As(err, &ne) && ne.Timeout()
}

// Pause is the time to wait after the nth failure, n from 1.
func Pause(n int) time.Duration {
	p := firstPause << min(n-1, 6)
	return p + time.Duration(rand.Int64N(int64(p)/2))
}

// Sleep waits, unless the context ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// errStalled is the end of a body from which nothing, or next to nothing, came for a while.
var errStalled = errors.New("less than 4 KiB received in a minute")

const (
	stall   = time.Minute
	trickle = 4 << 10 // bytes that a body must give in that time
)

// stalling closes a body from which too little comes.
type stalling struct {
	body    io.ReadCloser
	timer   *time.Timer
	stalled chan struct{}
	got     int // since the timer began
}

func watch(body io.ReadCloser) io.ReadCloser {
	s := &stalling{body: body, stalled: make(chan struct{})}
	s.timer = time.AfterFunc(stall, func() { close(s.stalled); body.Close() })
	return s
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err != nil && err != io.EOF {
		select {
		case <-s.stalled:
			err = errStalled
		default:
		}
	}
	if s.got += n; s.got >= trickle && s.timer.Stop() {
		s.got = 0
		s.timer.Reset(stall)
	}
	return n, err
}

func (s *stalling) Close() error {
	s.timer.Stop()
	return s.body.Close()
}

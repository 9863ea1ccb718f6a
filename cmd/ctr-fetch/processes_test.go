// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/layout/layouttest"
	"github.com/ctr-tools/ctr/pkg/registry"
)

// slow is a registry with an image of 8 MiB, of which blobs come 64 KiB at a time. sent counts their bytes.
func slow(t *testing.T, pause time.Duration) (ref string, sent *atomic.Int64) {
	t.Helper()
	l, err := layout.Create(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 8<<20)
	rand.New(rand.NewSource(1)).Read(noise)
	d := layouttest.Index(t, w, []layouttest.File{{Name: "noise", Data: noise, Mode: 0o644}}, layouttest.Platforms()...)
	if err := w.Tag("docker.io/library/app:1", d); err != nil {
		t.Fatal(err)
	}
	w.Close()
	sent = &atomic.Int64{}
	h := registry.NewServer(l, registry.ServerOptions{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			w = &throttle{w, sent, pause}
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close(); h.Close() })
	return strings.TrimPrefix(s.URL, "http://") + "/app:1", sent
}

type throttle struct {
	http.ResponseWriter
	sent  *atomic.Int64
	pause time.Duration
}

func (t *throttle) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		m := 0
		m, err = t.ResponseWriter.Write(p[:min(len(p), 64<<10)])
		t.sent.Add(int64(m))
		n, p = n+m, p[m:]
		t.ResponseWriter.(http.Flusher).Flush()
		time.Sleep(t.pause)
	}
	return n, err
}

func start(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(filepath.Join(clitest.Bin(t), "ctr-fetch"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &stderr
}

// An interrupted fetch, by a signal that it can catch or by one that it cannot, goes on where it stopped.
func TestInterrupt(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		ref, sent := slow(t, 5*time.Millisecond)
		dir := filepath.Join(t.TempDir(), "l")
		cmd, stderr := start(t, "--layout", dir, "--platform", "linux/amd64", ref)
		clitest.Eventually(t, func() error {
			files, _ := filepath.Glob(filepath.Join(dir, "partial", "sha256-*"))
			for _, f := range files {
				if st, err := os.Stat(f); err == nil && st.Size() > 1<<20 {
					return nil
				}
			}
			return os.ErrNotExist
		})
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if sig == syscall.SIGINT && (cmd.ProcessState.ExitCode() != 130 || !strings.Contains(stderr.String(), "interrupted")) {
			t.Errorf("%v: %v: %s", sig, cmd.ProcessState, stderr)
		}
		l, err := layout.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if left := layouttest.Good(t, l).Temps; len(left) == 0 {
			t.Errorf("%v left nothing to go on from", sig)
		}
		time.Sleep(20 * time.Millisecond) // the server notices
		before := sent.Load()
		cmd, stderr = start(t, "--layout", dir, "--platform", "linux/amd64", ref)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		if again := sent.Load() - before; again > 8<<20-1<<20+64<<10 {
			t.Errorf("%v: %d bytes were sent for the rest", sig, again)
		}
		if left := layouttest.Good(t, l).Temps; len(left) > 0 {
			t.Errorf("%v: left %v", sig, left)
		}
	}
}

// Two processes that want the same image both get it, and the registry sends it once.
func TestTwoFetches(t *testing.T) {
	ref, sent := slow(t, time.Millisecond)
	dir := filepath.Join(t.TempDir(), "l")
	var wg sync.WaitGroup
	for range 3 {
		cmd, stderr := start(t, "--layout", dir, "--platform", "linux/amd64", ref)
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, stderr)
			}
		})
	}
	wg.Wait()
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if left := layouttest.Good(t, l).Temps; len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if n := sent.Load(); n > 9<<20 {
		t.Errorf("%d bytes were sent", n)
	}
}

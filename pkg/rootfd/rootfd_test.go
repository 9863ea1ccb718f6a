// SPDX-License-Identifier: Apache-2.0

package rootfd_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// hostile is a root full of links that lead out, beside a canary that nothing may touch.
func hostile(t *testing.T) (r *rootfd.Root, root, canary string) {
	t.Helper()
	dir := t.TempDir()
	root, canary = filepath.Join(dir, "root"), filepath.Join(dir, "canary")
	for _, d := range []string{root, canary} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(canary, "f"), []byte("canary"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"abs": canary, "up": "../canary", "far": "../../../../../../../.." + canary, "file": canary + "/f", "loop": "loop", "dangling": "nowhere/at/all",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := rootfd.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		entries, err := os.ReadDir(canary)
		if err != nil || len(entries) != 1 {
			t.Errorf("the canary directory changed: %v %v", entries, err)
		}
		if b, _ := os.ReadFile(filepath.Join(canary, "f")); string(b) != "canary" {
			t.Errorf("the canary changed: %q", b)
		}
	})
	return r, root, canary
}

func TestNothingLeavesTheRoot(t *testing.T) {
	r, _, _ := hostile(t)
	for _, p := range []string{"abs/f", "up/f", "far/f", "file", "../canary/f", "abs/../../canary/f", "loop", "/abs/f", "dangling/f"} {
		if f, err := r.OpenFile(p, unix.O_RDONLY, 0); err == nil {
			f.Close()
			t.Errorf("open %s: got a file, want an error", p)
		}
		if err := r.WriteFile(p+"/new", []byte("x"), 0o644); err == nil {
			t.Errorf("write %s/new: got no error", p)
		}
		if err := r.MkdirAll(p+"/a/b", 0o755); err == nil && !strings.HasPrefix(p, "..") && !strings.Contains(p, "..") {
			t.Errorf("mkdir %s/a/b: got no error", p)
		}
	}
	if err := r.RemoveAll("abs/f"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestWriteReplacesLink(t *testing.T) {
	r, root, _ := hostile(t)
	if err := r.WriteFile("file", []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(filepath.Join(root, "file"))
	if err != nil || !st.Mode().IsRegular() {
		t.Errorf("file is %v, %v; want a regular file", st.Mode(), err)
	}
}

func TestTree(t *testing.T) {
	r, root, canary := hostile(t)
	if err := r.MkdirAll("a/b/c", 0o750); err != nil {
		t.Fatal(err)
	}
	if err := r.Symlink(canary, "a/b/out"); err != nil {
		t.Fatal(err)
	}
	if target, err := r.Readlink("a/b/out"); target != canary || err != nil {
		t.Errorf("got %q, %v, want %q", target, err, canary)
	}
	if err := r.WriteFile("a/b/c/f", []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := r.ReadFile("/a/b/c/f", 4); string(b) != "data" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := r.ReadFile("a/b/c/f", 3); err == nil {
		t.Error("a file over the limit was read")
	}
	if st, err := r.Lstat("a/b/out"); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("mode %o, %v; want a link", st.Mode, err)
	}
	if err := r.Remove("a"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("remove of a full directory: got %v, want %v", err, unix.ENOTEMPTY)
	}
	sub, err := r.Sub("a/b")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, err := sub.Lstat("../../abs"); err == nil {
		t.Error("a sub root was left by ..")
	}
	if err := r.RemoveAll("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(root, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a is still there: %v", err)
	}
}

// A FIFO must not block the reader (CVE-2024-9676 and its kind).
func TestReadFileOfFIFO(t *testing.T) {
	r, root, _ := hostile(t)
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := r.ReadFile("fifo", 100); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a FIFO was read as a file")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("reading a FIFO blocks")
	}
}

// A directory that is swapped for a link while it is being walked never leads out.
func TestRace(t *testing.T) {
	r, root, canary := hostile(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		d := filepath.Join(root, "d")
		for {
			select {
			case <-stop:
				return
			default:
			}
			os.Mkdir(d, 0o755)
			os.Rename(d, d+"2")
			os.Symlink(canary, d)
			os.Remove(d)
			os.RemoveAll(d + "2")
		}
	}()
	for range 2000 {
		r.MkdirAll("d/x", 0o755)
		r.WriteFile("d/f2", []byte("x"), 0o644)
		r.RemoveAll("d")
	}
	close(stop)
	<-done
}

// SPDX-License-Identifier: Apache-2.0

package atomicfile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
)

// The test binary is its own helper process: CTR_TEST_ADD=FILE:PREFIX:N adds N lines to FILE.
func TestMain(m *testing.M) {
	if arg := os.Getenv("CTR_TEST_ADD"); arg != "" {
		f := strings.Split(arg, ":")
		n, _ := strconv.Atoi(f[2])
		for i := range n {
			err := atomicfile.Update(f[0], 0o600, func(old []byte) ([]byte, error) {
				return fmt.Appendf(old, "%s%d\n", f[1], i), nil
			})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		return
	}
	os.Exit(m.Run())
}

func adder(t *testing.T, file, prefix string, n int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("CTR_TEST_ADD=%s:%s:%d", file, prefix, n))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestUpdateLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	a, b := adder(t, file, "a", 200), adder(t, file, "b", 200)
	for _, c := range []*exec.Cmd{a, b} {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, l := range strings.Fields(string(data)) {
		seen[l] = true
	}
	if len(seen) != 400 {
		t.Errorf("%d lines of 400 are there", len(seen))
	}
}

// TestKilledWriter kills a writer at many moments: the file is always whole lines, and Clean finds whatever
// temporary file was left.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "list")
	for i := range 40 {
		c := adder(t, file, "x", 100000)
		time.Sleep(time.Duration(5+i) * time.Millisecond)
		c.Process.Kill()
		c.Wait()
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if len(data) > 0 && data[len(data)-1] != '\n' {
			t.Fatalf("after kill %d the file ends in %q", i, data[len(data)-1])
		}
		os.Remove(file)
	}
	if _, err := atomicfile.Clean(dir); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	for _, e := range left {
		t.Errorf("%s is left", e.Name())
	}
}

func TestCleanSparesWritersAtWork(t *testing.T) {
	dir := t.TempDir()
	f, err := atomicfile.Create(filepath.Join(dir, "a"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := atomicfile.Clean(dir); n != 0 || err != nil {
		t.Fatalf("Clean removed %d, %v; want 0", n, err)
	}
	f.WriteString("content")
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "a")); string(b) != "content" {
		t.Errorf("content is %q", b)
	}
	f.Abort() // takes no effect after Commit
	if _, err := os.Stat(filepath.Join(dir, "a")); err != nil {
		t.Error(err)
	}
}

func TestUpdateKeepsOnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, []byte("old"), 0o600)
	wrong := errors.New("no")
	if err := atomicfile.Update(file, 0o600, func([]byte) ([]byte, error) { return []byte("new"), wrong }); err != wrong {
		t.Errorf("got %v, want %v", err, wrong)
	}
	if b, _ := os.ReadFile(file); string(b) != "old" {
		t.Errorf("content is %q, want old", b)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("%d files in the directory, want 1", len(left))
	}
}

// A full disk is an error and leaves the old content (SECURITY: reliability).
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: needs root for a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIP: needs to mount a tmpfs: %v", err)
	}
	defer unix.Unmount(dir, 0)
	file := filepath.Join(dir, "f")
	if err := atomicfile.Write(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := atomicfile.Write(file, make([]byte, 1<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
	if b, _ := os.ReadFile(file); string(b) != "old" {
		t.Errorf("content is %d bytes, want old", len(b))
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files left, want 1", len(left))
	}
}

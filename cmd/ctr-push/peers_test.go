// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/layout/layouttest"
)

// shop is a layout with an image of busybox, and a registry for pushes.
type shop struct {
	t    *testing.T
	l    *layout.Layout
	dir  string // where commands run
	root ocispec.Descriptor
	one  ocispec.Descriptor
	reg  string
	dest *layout.Layout
}

func open(t *testing.T) *shop {
	t.Helper()
	dir := t.TempDir()
	s := &shop{t: t, dir: dir}
	var err error
	if s.l, err = layout.Create(filepath.Join(dir, "from")); err != nil {
		t.Fatal(err)
	}
	w, err := s.l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	files := []layouttest.File{{Name: "bin/busybox", Data: layouttest.Busybox(t), Mode: 0o755}}
	s.root = layouttest.Index(t, w, files, layouttest.Platforms()...)
	s.one = layouttest.Image(t, w, layouttest.Platforms()[0], files...)
	if err := w.Tag("docker.io/library/multi:1", s.root); err != nil {
		t.Fatal(err)
	}
	if err := w.Tag("docker.io/library/one:1", s.one); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(clitest.Bin(t), "ctr-push"), "serve", "--read-write", "--listen", "127.0.0.1:0", filepath.Join(dir, "to"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s.reg = strings.TrimPrefix(strings.TrimSpace(line), "http://")
	if s.dest, err = layout.Open(filepath.Join(dir, "to")); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shop) run(args ...string) string {
	s.t.Helper()
	path := args[0]
	if strings.HasPrefix(path, "ctr-") {
		path = filepath.Join(clitest.Bin(s.t), path)
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CTR_ROOT="+filepath.Join(s.dir, "root"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

func (s *shop) good() {
	s.t.Helper()
	layouttest.Good(s.t, s.l)
	layouttest.Good(s.t, s.dest)
}

func TestSkopeo(t *testing.T) {
	clitest.Need(t, "skopeo")
	s := open(t)
	// Our layout, our registry, our archives.
	s.run("skopeo", "copy", "--all", "--dest-tls-verify=false", "oci:from:docker.io/library/multi:1", "docker://"+s.reg+"/sk/multi:1")
	s.run("skopeo", "copy", "--dest-tls-verify=false", "oci:from:docker.io/library/one:1", "docker://"+s.reg+"/sk/one:1")
	s.run("skopeo", "copy", "--src-tls-verify=false", "docker://"+s.reg+"/sk/one:1", "oci:theirs:one")
	s.run("ctr-push", "oci:from:one:1", "docker-archive:d.tar")
	s.run("ctr-push", "oci:from:multi:1", "oci-archive:o.tar:multi")
	s.run("skopeo", "inspect", "docker-archive:d.tar")
	s.run("skopeo", "copy", "oci-archive:o.tar:multi", "oci:theirs:multi")
	if tags := s.run("skopeo", "list-tags", "--tls-verify=false", "docker://"+s.reg+"/sk/one"); !strings.Contains(tags, `"1"`) {
		t.Errorf("tags: %s", tags)
	}
	if d, err := s.dest.Resolve(t.Context(), "docker.io/sk/multi:1"); err != nil || d.Digest != s.root.Digest {
		t.Errorf("pushed by skopeo: %v, %v, want %v", d.Digest, err, s.root.Digest)
	}
	// Their layout and archives.
	if got := s.run("ctr-fetch", "--name", "one", "oci:theirs:one"); got != string(s.one.Digest) {
		t.Errorf("fetched from skopeo's layout: %s", got)
	}
	s.run("ctr-fetch", "fsck", "oci:theirs")
	s.run("skopeo", "copy", "oci:from:docker.io/library/one:1", "docker-archive:theirs.tar:app:1")
	s.run("ctr-fetch", "docker-archive:theirs.tar")
	s.run("ctr-fetch", "fsck")
	if list := s.run("ctr-fetch", "list"); !strings.Contains(list, "app:1") {
		t.Errorf("list: %s", list)
	}
	s.good()
}

func TestCrane(t *testing.T) {
	clitest.Need(t, "crane")
	s := open(t)
	s.run("ctr-push", "oci:from:multi:1", s.reg+"/app:1")
	s.run("crane", "validate", "--remote", s.reg+"/app:1")
	s.run("crane", "copy", s.reg+"/app:1", s.reg+"/other/app:2")
	s.run("crane", "tag", s.reg+"/app:1", "3")
	if got := s.run("crane", "ls", s.reg+"/app"); got != "1\n3" {
		t.Errorf("tags %q", got)
	}
	if got := s.run("crane", "digest", s.reg+"/other/app:2"); got != string(s.root.Digest) {
		t.Errorf("digest %s, want %s", got, s.root.Digest)
	}
	s.run("crane", "pull", "--format=oci", s.reg+"/app:1", "theirs")
	s.run("ctr-fetch", "fsck", "oci:theirs")
	s.run("crane", "pull", "--platform=linux/amd64", s.reg+"/app:1", "theirs.tar")
	s.run("ctr-fetch", "--name", "fromcrane", "docker-archive:theirs.tar")
	s.run("crane", "mutate", "--label", "a=b", "--tag", s.reg+"/one:2", s.reg+"/app@"+s.run("crane", "digest", "--platform=linux/amd64", s.reg+"/app:1"))
	s.run("ctr-fetch", "fsck")
	s.good()
}

func TestUmoci(t *testing.T) {
	clitest.Need(t, "umoci")
	s := open(t)
	if got := s.run("umoci", "ls", "--layout", "from"); got != "docker.io/library/multi:1\ndocker.io/library/one:1" {
		t.Errorf("names %q", got)
	}
	s.run("umoci", "tag", "--image", "from:docker.io/library/one:1", "mine")
	s.run("umoci", "config", "--image", "from:mine", "--config.cmd", "/bin/true")
	s.run("umoci", "gc", "--layout", "from")
	s.run("ctr-fetch", "fsck", "oci:from")
	s.run("ctr-fetch", "--name", "mine", "oci:from:mine")
	s.good()
}

func TestPodman(t *testing.T) {
	clitest.Need(t, "podman")
	clitest.Root(t)
	s := open(t)
	s.run("ctr-push", "oci:from:one:1", s.reg+"/app:1")
	// A store of its own: nothing is left in the system's.
	podman := func(args ...string) string {
		return s.run(append([]string{"podman", "--root", filepath.Join(s.dir, "store"), "--runroot", filepath.Join(s.dir, "run"), "--storage-driver", "vfs"}, args...)...)
	}
	podman("pull", "-q", "--tls-verify=false", s.reg+"/app:1")
	podman("tag", s.reg+"/app:1", s.reg+"/back:1")
	podman("push", "-q", "--tls-verify=false", s.reg+"/back:1")
	s.run("ctr-fetch", s.reg+"/back:1")
	s.run("ctr-push", "oci:from:one:1", "docker-archive:d.tar:loaded:1")
	podman("load", "-q", "-i", "d.tar")
	podman("save", "-q", "-o", "s.tar", "docker.io/library/loaded:1")
	s.run("ctr-fetch", "docker-archive:s.tar")
	s.run("ctr-fetch", "fsck")
	s.good()
}

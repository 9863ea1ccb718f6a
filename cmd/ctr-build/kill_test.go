// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// A bench is a context with a base, in roots of its own.
type bench struct {
	bin, dir string
	env      []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	clitest.Root(t)
	clitest.Need(t, "busybox")
	b := &bench{bin: clitest.Bin(t), dir: t.TempDir()}
	b.env = append(os.Environ(), "CTR_ROOT="+filepath.Join(b.dir, "root"), "CTR_RUN="+filepath.Join(b.dir, "run"), "PATH="+b.bin+":"+os.Getenv("PATH"))
	ctx := filepath.Join(b.dir, "ctx")
	if err := os.Mkdir(ctx, 0o755); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ctx, "sh"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) build(dockerfile string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(filepath.Join(b.bin, "ctr-build"), append(append([]string{"-f", "-"}, args...), filepath.Join(b.dir, "ctx"))...)
	cmd.Env, cmd.Stdin = b.env, strings.NewReader(dockerfile)
	var said bytes.Buffer
	cmd.Stderr = &said
	return cmd, &said
}

// left lists what is in the directories that are empty when no build is at work.
func (b *bench) left() (left []string) {
	for _, pattern := range []string{"root/build/tmp/*", "root/build/failed/*", "run/build/*/*", "run/build/*/containers/*"} {
		found, _ := filepath.Glob(filepath.Join(b.dir, pattern))
		for _, f := range found {
			if filepath.Base(f) != "containers" {
				left = append(left, f)
			}
		}
	}
	return left
}

// started waits until the step runs: it has made its mark in the cache mount.
func (b *bench) started(t *testing.T) {
	t.Helper()
	clitest.Eventually(t, func() error {
		m, _ := filepath.Glob(filepath.Join(b.dir, "root/build/mounts/*/data/mark"))
		if len(m) == 0 {
			return errors.New("the step did not start")
		}
		return nil
	})
}

const slow = "FROM scratch\nCOPY sh /bin/sh\nRUN --mount=type=cache,target=/c echo > /c/mark; while :; do :; done\n"

// TestInterrupt: the container is killed, nothing is left, the status is that of the signal.
func TestInterrupt(t *testing.T) {
	b := newBench(t)
	cmd, said := b.build(slow)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.started(t)
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if got := toolkit.ExitStatus(cmd.ProcessState); got != 130 {
		t.Errorf("exit status %d, want 130: %s", got, said)
	}
	if left := b.left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestKilled: what a build that was killed leaves, a running container above all, the next one removes; also
// where failed steps are kept, and where a build of another root that shares CTR_RUN comes first.
func TestKilled(t *testing.T) {
	b := newBench(t)
	secret := filepath.Join(b.dir, "secret")
	if err := os.WriteFile(secret, []byte("topsecret"), 0o600); err != nil {
		t.Fatal(err)
	}
	src := strings.Replace(slow, "RUN ", "RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s ", 1)
	for _, args := range [][]string{nil, {"--keep-failed"}} {
		cmd, _ := b.build(src, append(args, "--secret", "id=s,src="+secret)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		b.started(t)
		for _, other := range []*bench{b.sibling(t), b.sibling(t)} { // the second finds what the first made
			cmd, said := other.build("FROM scratch\nCOPY sh /bin/sh\nRUN echo built > /ok\n")
			if err := cmd.Run(); err != nil {
				t.Errorf("%v: %s", err, said)
			}
		}
		if found := b.secrets(); len(found) < 2 {
			t.Errorf("the secret is in %q while the step runs: another root's build has removed it", found)
		}
		cmd.Process.Kill()
		cmd.Wait()
		if left := b.left(); len(left) < 3 {
			t.Errorf("left: %v, want a session, a container and secrets: the test tests nothing", left)
		}
		next, said := b.build("FROM scratch\nCOPY sh /bin/sh\nRUN echo built > /ok\n")
		if err := next.Run(); err != nil {
			t.Errorf("%v: %s", err, said)
		}
		if left := b.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if found := b.secrets(); len(found) > 0 {
			t.Errorf("the secret is left in %q", found)
		}
		if !strings.Contains(said.String(), "COPY sh /bin/sh (cached)") {
			t.Errorf("the killed build's finished step was done again: %s", said)
		}
		if err := os.RemoveAll(filepath.Join(b.dir, "root/build/mounts")); err != nil {
			t.Fatal(err)
		}
	}
}

// sibling has another root and the same CTR_RUN.
func (b *bench) sibling(t *testing.T) *bench {
	t.Helper()
	root := filepath.Join(b.dir, "root2")
	return &bench{bin: b.bin, dir: b.dir, env: append(slices.Clone(b.env), "CTR_ROOT="+root)}
}

// secrets are the files below the roots that hold the secret.
func (b *bench) secrets() (found []string) {
	for _, dir := range []string{"root", "run"} {
		filepath.WalkDir(filepath.Join(b.dir, dir), func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if data, err := os.ReadFile(p); err == nil && bytes.Contains(data, []byte("topsecret")) {
					found = append(found, p)
				}
			}
			return nil
		})
	}
	return found
}

// TestTogether: builds of one project at the same time, with steps that run, agree.
func TestTogether(t *testing.T) {
	b := newBench(t)
	src := "FROM scratch AS one\nCOPY sh /bin/sh\nRUN echo 1 > /1\nFROM one AS two\nRUN echo 2 > /2\nFROM one\nRUN echo 3 > /3\nCOPY --from=two /2 /2\n"
	var cmds []*exec.Cmd
	var outs, errs []*bytes.Buffer
	for range 3 {
		cmd, said := b.build(src)
		out := new(bytes.Buffer)
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, outs, errs = append(cmds, cmd), append(outs, out), append(errs, said)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("build %d: %v: %s", i, err, errs[i])
		}
		if outs[i].String() != outs[0].String() {
			t.Errorf("build %d: got %s, want %s", i, outs[i], outs[0])
		}
	}
	if left := b.left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

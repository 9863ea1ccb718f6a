// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/runtime"
)

// A user without any privilege runs a container in which the own id is root's.
func TestRootless(t *testing.T) {
	clitest.UserNS(t)
	const uid = 54321
	b := newBox(t, "sh", "-c", "id -u; cat /proc/self/uid_map; ls /; exec sleep 1000")
	runtime.MakeRootless(b.spec, uid, uid)
	b.save()
	bin := filepath.Join(b.dir, "ctr-run") // the build directory may be closed to others
	data, err := os.ReadFile(filepath.Join(clitest.Bin(t), "ctr-run"))
	if err == nil {
		err = os.WriteFile(bin, data, 0o755)
	}
	if err == nil {
		err = os.Mkdir(b.root, 0o700)
	}
	if err == nil {
		err = os.Chmod(filepath.Dir(b.dir), 0o755)
	}
	if err == nil {
		err = filepath.WalkDir(b.dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, uid, uid)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.root) }) // after the container, before clean looks
	as := func(args ...string) string {
		t.Helper()
		out, err := os.CreateTemp(b.dir, "out") // the container keeps its own
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := exec.Command(bin, append([]string{"--root", b.root}, args...)...)
		cmd.Dir = b.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Stdout, cmd.Stderr = out, out
		err = cmd.Run()
		text, _ := os.ReadFile(out.Name())
		if err != nil {
			t.Errorf("%q: %v: %s", args, err, text)
		}
		return string(text)
	}
	t.Cleanup(func() { as("delete", "--force", b.id) })
	as("run", "--detach", "--bundle", b.dir, b.id)
	if got := as("exec", b.id, "sh", "-c", "id -u; ls /"); got != "0\nbin\ndev\netc\nproc\nsys\ntmp\n" {
		t.Errorf("exec: got %q", got)
	}
	if got := as("exec", b.id, "cat", "/proc/1/uid_map"); strings.Join(strings.Fields(got), " ") != "0 54321 1" {
		t.Errorf("uid_map: got %q", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

// Where ctr-run itself is in a chroot, pivot_root(2) does not change the root of the mount namespace: a process
// that joins the container has to be led to the container's root, not to the host's.
func TestChroot(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.write("marker", "")
	b.write("bin/hook", "#!/bin/sh\n[ -e /marker ] && echo ran >/tmp/hook\n")
	if err := os.Chmod(b.in("bin/hook"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.spec.Root.Readonly = false
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/hook"}}}
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	b.save()

	top := filepath.Join(b.dir, "top") // the chroot: the bundle, the tools, and no marker
	for _, d := range []string{"proc", "sys", "dev", "tmp", "b", "bin", "run"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for to, from := range map[string]string{"bin/ctr-run": filepath.Join(clitest.Bin(t), "ctr-run"), "bin/busybox": b.in("bin/busybox"), "bin/sh": b.in("bin/busybox")} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(top, to), data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	script := `set -e
mount --bind "$1" "$1"
for d in proc sys dev; do mount --rbind /$d "$1/$d"; done
mount --bind "$2" "$1/b"
exec chroot "$1" /bin/sh -ec "$3" sh "$4"`
	inside := `
trap '/bin/ctr-run --root /run/c delete --force $1' EXIT
/bin/ctr-run --root /run/c run --detach --bundle /b $1 >/dev/null 2>&1 </dev/null
/bin/ctr-run --root /run/c exec $1 ls /
/bin/ctr-run --root /run/c exec $1 cat /tmp/hook /etc/passwd
/bin/ctr-run --root /run/c exec $1 readlink /proc/1/root
`
	out, err := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", top, b.dir, inside, b.id).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "bin\ndev\netc\nmarker\nproc\nsys\ntmp\nran\nroot:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n/\n"
	if string(out) != want {
		t.Errorf("got %s\nwant %s", out, want)
	}
	if hosts, _ := os.ReadFile("/tmp/hook"); strings.Contains(string(hosts), "ran") {
		t.Error("the hook ran in the host's root")
	}
}

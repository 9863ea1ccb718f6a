// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

// runtime is the runtime under test; CTR_TEST_RUNTIME=/usr/sbin/runc asks a peer the same questions.
func runtime(t *testing.T) string {
	if r := os.Getenv("CTR_TEST_RUNTIME"); r != "" {
		return r
	}
	return filepath.Join(clitest.Bin(t), "ctr-run")
}

// tree makes a root filesystem of busybox in the host's directory.
func (h *host) tree(name string) string {
	h.t.Helper()
	clitest.Need(h.t, "busybox")
	exe, _ := exec.LookPath("busybox")
	root := filepath.Join(h.dir, name)
	h.do("sh", "-ec", `mkdir -p "$1/bin" "$1/proc" "$1/sys" "$1/dev" "$1/tmp" "$1/etc"; cp "$2" "$1/bin/busybox"
for a in sh true echo sleep cat id ls ps httpd hostname pwd mount; do ln -sf busybox "$1/bin/$a"; done
echo root:x:0:0::/:/bin/sh >"$1/etc/passwd"`, "sh", root, exe)
	return root
}

// edit changes a bundle's config.json as a program of somebody else does.
func edit(t *testing.T, bundle string, f func(config map[string]any)) {
	t.Helper()
	p := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	f(c)
	if b, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// cgroups lists the cgroups whose name holds s.
func cgroups(s string) string {
	out, _ := exec.Command("find", "/sys/fs/cgroup", "-type", "d", "-name", "*"+s+"*").Output()
	return string(out)
}

// runBundle runs bundle with args and checks what it prints, its status, and that nothing of it is left.
func (h *host) runBundle(bundle, id string, args []string, stdout string, status int) {
	h.t.Helper()
	edit(h.t, bundle, func(c map[string]any) {
		p := c["process"].(map[string]any)
		p["terminal"] = false
		p["args"] = args
	})
	rt := []string{runtime(h.t), "--root", filepath.Join(h.dir, "containers")}
	out, stderr, got := h.try(append(rt, "run", "--bundle", bundle, id)...)
	if out != stdout || got != status {
		h.t.Errorf("run %q: got %q, exit status %d\n%s; want %q, %d", args, out, got, stderr, stdout, status)
	}
	if out, _, status := h.try(append(rt, "list", "-q")...); out != "" || status != 0 {
		h.t.Errorf("after run %q: list prints %q, exit status %d", args, out, status)
	}
	if c := cgroups(id); c != "" {
		h.t.Errorf("after run %q: cgroups are left:\n%s", args, c)
	}
}

// life is create, start, exec, state, kill, delete of a container that sleeps.
func (h *host) life(bundle, id string) {
	h.t.Helper()
	edit(h.t, bundle, func(c map[string]any) { c["process"].(map[string]any)["args"] = []string{"sleep", "1000"} })
	rt := func(args ...string) string {
		h.t.Helper()
		return h.do(append([]string{runtime(h.t), "--root", filepath.Join(h.dir, "containers")}, args...)...)
	}
	status := func() string {
		h.t.Helper()
		var s struct{ Status string }
		if err := json.Unmarshal([]byte(rt("state", id)), &s); err != nil {
			h.t.Error(err)
		}
		return s.Status
	}
	// A created container keeps its stdio; the test must not wait for it.
	h.do("sh", "-ec", `"$@" </dev/null >/dev/null 2>&1`, "sh", runtime(h.t), "--root", filepath.Join(h.dir, "containers"),
		"create", "--bundle", bundle, "--pid-file", filepath.Join(h.dir, "pid"), id)
	defer h.try(runtime(h.t), "--root", filepath.Join(h.dir, "containers"), "delete", "--force", id)
	if s := status(); s != "created" {
		h.t.Errorf("after create: %s", s)
	}
	rt("start", id)
	if s := status(); s != "running" {
		h.t.Errorf("after start: %s", s)
	}
	if out := rt("exec", id, "echo", "inside"); out != "inside\n" {
		h.t.Errorf("exec prints %q", out)
	}
	if _, _, status := h.try(runtime(h.t), "--root", filepath.Join(h.dir, "containers"), "exec", id, "sh", "-c", "exit 7"); status != 7 {
		h.t.Errorf("exec of exit 7: exit status %d", status)
	}
	rt("kill", id, "KILL")
	clitest.Eventually(h.t, func() error {
		if s := status(); s != "stopped" {
			return &os.PathError{Op: "state", Path: id, Err: os.ErrInvalid}
		}
		return nil
	})
	rt("delete", id)
	if c := cgroups(id); c != "" {
		h.t.Errorf("after delete: cgroups are left:\n%s", c)
	}
}

func TestBundleOfRunc(t *testing.T) {
	clitest.Need(t, "runc")
	h := newHost(t)
	h.tree("b/rootfs")
	h.do("runc", "spec", "--bundle", "b")
	b := filepath.Join(h.dir, "b")
	id := h.unique("spec")
	h.runBundle(b, id, []string{"sh", "-c", "echo $PWD $(id -u) $(hostname)"}, "/ 0 runc\n", 0)
	h.runBundle(b, id, []string{"sh", "-c", "exit 42"}, "", 42)
	h.life(b, id)
}

func TestBundleOfUmoci(t *testing.T) {
	clitest.Need(t, "umoci")
	h := newHost(t)
	h.tree("tree")
	h.do("umoci", "init", "--layout", "l")
	h.do("umoci", "new", "--image", "l:x")
	h.do("umoci", "insert", "--image", "l:x", "tree", "/")
	h.do("umoci", "config", "--image", "l:x", "--config.cmd", "sh", "--config.env", "A=b c", "--config.workingdir", "/tmp", "--config.user", "12:34")
	h.do("umoci", "unpack", "--image", "l:x", "b")
	b := filepath.Join(h.dir, "b")
	id := h.unique("umoci")
	h.runBundle(b, id, []string{"sh", "-c", `echo "$PWD $(id -u):$(id -g) $A"`}, "/tmp 12:34 b c\n", 0)
	h.life(b, id)
}

// unique is a name for what the kernel shows to everybody.
func (h *host) unique(s string) string {
	return s + "-" + strings.ReplaceAll(filepath.Base(filepath.Dir(h.dir)), "_", "")
}

// podman runs a script in namespaces of its own (network and mounts), so that its bridges, rules and mounts go with it.
// In the script p is podman with the runtime under test and directories of the test's own, and i the image.
func (h *host) podman(script string) string {
	h.t.Helper()
	clitest.Need(h.t, "podman", "conmon", "unshare", "ip")
	h.tree("tree")
	h.write("lib.sh", `D=`+h.dir+`
ip link set lo up
p() { podman --root "$D/p/root" --runroot "$D/p/run" --tmpdir "$D/p/tmp" --storage-driver vfs --cgroup-manager cgroupfs \
	--events-backend file --network-config-dir "$D/p/net" --runtime "$R" "$@"; }
# Podman asks for more descriptors and processes than some machines give to root.
u='--ulimit nofile=1024:1024 --ulimit nproc=4096:4096'
i=local/busybox:1
mkdir -p "$D/p/net"
tar -C "$D/tree" -c . | p import -q - $i >/dev/null
mounts() { cut -d' ' -f2 /proc/self/mounts | grep -F "$D" | sort; }
mounts >"$D/mounts"
trap 'p rm -a -f -t 0 >/dev/null; p unmount -a >/dev/null; umount "$D/p/root/vfs" 2>/dev/null; umount "$D/p/run/netns" 2>/dev/null
	mounts | diff "$D/mounts" - | sed "s/^/left: /"' EXIT
`)
	h.sweepPodman()
	out, stderr, status := h.try("env", "R="+runtime(h.t), "unshare", "-nm", "sh", "-c", ". ./lib.sh\n"+script)
	if status != 0 {
		h.t.Errorf("exit status %d\n%s", status, stderr)
	}
	if stderr != "" {
		h.t.Logf("podman says:\n%s", stderr)
	}
	return out
}

// sweepPodman removes, when the test ends, the cgroup that podman keeps above its containers for itself, and fails if
// another one is left.
func (h *host) sweepPodman() {
	before := cgroups("libpod")
	h.t.Cleanup(func() {
		clitest.Eventually(h.t, func() error {
			for _, d := range strings.Fields(cgroups("libpod_parent")) {
				if !strings.Contains(before, d) {
					os.Remove(d + "/conmon")
					os.Remove(d)
				}
			}
			if after := cgroups("libpod"); len(strings.Fields(after)) > len(strings.Fields(before)) {
				return &os.PathError{Op: "left", Path: after, Err: os.ErrExist}
			}
			return nil
		})
	})
}

func TestPodman(t *testing.T) {
	h := newHost(t)
	got := h.podman(`
s() { echo "= $?"; }
p run $u --rm --network none $i true; s
p run $u --rm --network none $i sh -c 'echo out; echo err >&2; exit 7'; s
echo in | p run $u --rm -i --network none $i cat; s
p run $u --rm -t --network none $i sh -c 'test -t 0 && echo tty' | tr -d '\r'
p run $u --rm --network none --read-only --user 1000:1000 --cap-drop all --workdir /tmp -e A=b $i sh -c 'echo $A $PWD $(id -u):$(id -g); : >/x'; s
p run $u --rm --network none --tmpfs /data:size=1m -v "$D/tree/etc:/host:ro" $i sh -c 'echo x >/data/x && cat /data/x /host/passwd; : >/host/x'; s
p run $u --rm --network none $i /nosuch; s
p run $u --rm --network none --init-path /nosuch --pids-limit 30 --hostname boxed $i hostname; s
p run $u -d --name c --network none $i sh -c 'echo started; trap "echo bye; exit 3" TERM; while :; do sleep 0.05; done' >/dev/null; s
until p logs c | grep -q started; do sleep 0.05; done
p exec c sh -c 'echo exec; exit 5'; s
echo in | p exec -i c cat; s
p exec -u 12 c id -u; s
p pause c >/dev/null && p ps -a --format '{{.Names}} {{.State}}' | tr P p && p unpause c >/dev/null; s
p top c args | grep -c 'sh -c echo started'
p stop -t 5 c; s
p inspect c --format '{{.State.Status}} {{.State.ExitCode}}'
p logs c
p start c >/dev/null; s
p kill c; p wait c
p rm c; s
p ps -aq; s
`)
	want := `= 0
out
= 7
in
= 0
tty
b /tmp 1000:1000
= 1
x
root:x:0:0::/:/bin/sh
= 1
= 127
boxed
= 0
= 0
exec
= 5
in
= 0
12
= 0
c paused
= 0
1
c
= 0
exited 3
started
bye
= 0
c
137
c
= 0
= 0
`
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPodmanNetwork(t *testing.T) {
	clitest.Need(t, "curl")
	h := newHost(t)
	got := h.podman(`
if ! p run $u -d --name w -p 127.0.0.1:8080:80 $i sh -c 'mkdir /w; echo page >/w/index.html; exec httpd -f -p 80 -h /w' >/dev/null 2>"$D/err"; then
	echo "SKIP: podman has no network here: $(tail -1 "$D/err")"; exit 0
fi
n=0; until curl -sf --max-time 2 http://127.0.0.1:8080/ || [ $n -gt 100 ]; do sleep 0.1; n=$((n + 1)); done
p rm -f -t 0 w >/dev/null
`)
	if strings.HasPrefix(got, "SKIP:") {
		t.Skip(strings.TrimSpace(got))
	}
	if got != "page\n" {
		t.Errorf("got %q, want the page", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

const appDockerfile = `FROM busybox AS tools
RUN mkdir -p /opt/app/data && echo one > /opt/app/data/a && ln -s a /opt/app/data/link && ln /opt/app/data/a /opt/app/data/hard
FROM busybox
LABEL org.example.kind="test app"
ENV GREETING=hello
COPY --from=tools /opt/app /opt/app
RUN rm /opt/app/data/a && echo two > /opt/app/data/b && chmod 4755 /opt/app/data/b && chown 12:34 /opt/app/data/b
WORKDIR /opt/app
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["sh", "-c"]
CMD ["echo $GREETING from $PWD as $(id -u); cat data/hard data/b"]
`

const appOutput = "hello from /opt/app as 1000\none\ntwo\n"

// app builds the image above into the layout DIR/app under the name "app".
func app(t *testing.T) *host {
	h := newHost(t)
	h.busybox()
	h.write("app/Dockerfile", appDockerfile)
	h.do("ctr-build", "-q", "-o", "oci:"+h.dir+"/layout:app", "app")
	return h
}

func TestSkopeoInspectsOurImage(t *testing.T) {
	clitest.Need(t, "skopeo")
	h := app(t)
	var info struct {
		Labels map[string]string
		Env    []string
		Layers []string
	}
	if err := json.Unmarshal([]byte(h.do("skopeo", "inspect", "oci:"+h.dir+"/layout:app")), &info); err != nil {
		t.Fatal(err)
	}
	if info.Labels["org.example.kind"] != "test app" || len(info.Layers) == 0 || !strings.Contains(strings.Join(info.Env, " "), "GREETING=hello") {
		t.Errorf("got %+v", info)
	}
	// Skopeo reads every blob when it copies, and the copy is the image.
	h.do("skopeo", "copy", "--preserve-digests", "-q", "oci:"+h.dir+"/layout:app", "oci:"+h.dir+"/copy:app")
	h.do("ctr-fetch", "fsck", "oci:"+h.dir+"/copy")
}

func TestUmociUnpacksOurImage(t *testing.T) {
	clitest.Need(t, "umoci")
	h := app(t)
	h.do("umoci", "unpack", "--image", h.dir+"/layout:app", h.dir+"/bundle")
	h.do("ctr-fetch", "unpack", "--copy", "oci:"+h.dir+"/layout:app", h.dir+"/ours")
	// The two trees are the same: names, types, modes, owners, sizes, links.
	tree := func(dir string) string {
		return h.do("sh", "-c", `cd "$1" && find . -printf '%p %y %m %U:%G %n %l %s\n' | awk '{ if ($2 == "d") $7 = 0; print }' | sort`, "sh", dir)
	}
	theirs, ours := tree(h.dir+"/bundle/rootfs"), tree(h.dir+"/ours/rootfs")
	if theirs != ours {
		h.write("theirs", theirs)
		h.write("ours.list", ours)
		diff, _, _ := h.try("diff", h.dir+"/theirs", h.dir+"/ours.list")
		t.Errorf("the trees differ (< umoci, > ctr-fetch):\n%s", diff)
	}
	if out := h.do("ctr-run", "run", "--bundle", h.dir+"/ours", "o"+filepath.Base(h.dir)+"-umoci"); out != appOutput {
		t.Errorf("got %q, want %q", out, appOutput)
	}
}

func TestCraneValidatesOurImage(t *testing.T) {
	clitest.Need(t, "crane")
	h := app(t)
	addr := h.serve(h.dir + "/registry")
	h.do("ctr-push", "oci:"+h.dir+"/layout:app", addr+"/app:1")
	h.do("crane", "validate", "--remote", addr+"/app:1")
	if tags := h.do("crane", "ls", addr+"/app"); tags != "1\n" {
		t.Errorf("tags are %q, want 1", tags)
	}
	// And the way back, from a registry that crane filled.
	h.do("crane", "copy", addr+"/app:1", addr+"/app:2")
	h.do("ctr-fetch", "-q", addr+"/app:2")
}

func TestPodmanRunsOurImage(t *testing.T) {
	clitest.Need(t, "podman", "runc")
	h := app(t)
	h.sweepPodman()
	podman := []string{"podman", "--runtime", "runc", // crun 1.8 refuses hybrid cgroups
		"--root", h.dir + "/p", "--runroot", h.dir + "/pr", "--tmpdir", h.dir + "/pt",
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"}
	out := h.do(append(podman, "run", "--rm", "--network", "none",
		"--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512", // its defaults are above some machines' hard limits
		"oci:layout:app")...) // relative: podman makes a name of the path, and names have no capitals
	if out != appOutput {
		t.Errorf("got %q, want %q", out, appOutput)
	}
}

func TestRuncRunsOurBundle(t *testing.T) {
	clitest.Need(t, "runc")
	h := app(t)
	h.do("ctr-fetch", "unpack", "--mount", "oci:"+h.dir+"/layout:app", h.dir+"/bundle")
	t.Cleanup(func() { h.try("umount", h.dir+"/bundle/rootfs") })
	id := "runc" + filepath.Base(h.dir)
	if out := h.do("runc", "--root", h.dir+"/runc", "run", "--bundle", h.dir+"/bundle", id); out != appOutput {
		t.Errorf("got %q, want %q", out, appOutput)
	}
	h.do("umount", h.dir+"/bundle/rootfs")
}

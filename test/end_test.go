// SPDX-License-Identifier: Apache-2.0

// Package test holds the tests that need several tools or a peer: they run the real binaries as root against
// the kernel, in directories and with names of their own.
package test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// A host is a pair of roots with the tools in PATH, as a user has one.
type host struct {
	t    *testing.T
	dir  string
	root string // CTR_ROOT
	run  string // CTR_RUN
	env  []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	clitest.Root(t)
	bin := clitest.Bin(t)
	dir := t.TempDir()
	h := &host{t: t, dir: dir, root: filepath.Join(dir, "lib"), run: filepath.Join(dir, "run")}
	h.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CTR_ROOT="+h.root, "CTR_RUN="+h.run)
	return h
}

// try runs a command in the host's directory and returns what it printed and its exit status.
func (h *host) try(args ...string) (stdout, stderr string, status int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	// The tools are looked up in the host's PATH, not in the test's.
	cmd := exec.CommandContext(ctx, "env", append([]string{"--"}, args...)...)
	cmd.Dir, cmd.Env = h.dir, h.env
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	cmd.WaitDelay = time.Second // a daemon-like child may keep the pipes
	err := cmd.Run()
	if cmd.ProcessState == nil {
		h.t.Fatalf("%s: %v", toolkit.Quote(args), err)
	}
	return o.String(), e.String(), toolkit.ExitStatus(cmd.ProcessState)
}

// do is try for a command that has to succeed; it returns stdout.
func (h *host) do(args ...string) string {
	h.t.Helper()
	out, stderr, status := h.try(args...)
	if status != 0 {
		h.t.Fatalf("%s: exit status %d\n%s%s", toolkit.Quote(args), status, out, stderr)
	}
	return out
}

// write makes a file below the host's directory.
func (h *host) write(name, content string) string {
	h.t.Helper()
	p := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// busybox builds the image "busybox" from the machine's static busybox.
func (h *host) busybox() {
	h.t.Helper()
	clitest.Need(h.t, "busybox")
	exe, _ := exec.LookPath("busybox")
	h.do("cp", "-r", filepath.Join(clitest.Source(), "examples/guestbook/base"), h.dir+"/base")
	h.do("cp", exe, h.dir+"/base/busybox")
	h.do("ctr-build", "-q", "-t", "busybox", "base")
}

// serve starts ctr-push serve on a layout and returns its address; it ends with the test.
func (h *host) serve(layout string) string {
	h.t.Helper()
	url := filepath.Join(h.dir, "serve-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	out, err := os.OpenFile(url, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(clitest.Bin(h.t), "ctr-push"), "serve", "--read-write", "--listen", "127.0.0.1:0", layout)
	cmd.Env, cmd.Stdout, cmd.Stderr = h.env, out, os.Stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	})
	var addr string
	clitest.Eventually(h.t, func() error {
		b, err := os.ReadFile(url)
		addr = strings.TrimSpace(strings.TrimPrefix(string(b), "http://"))
		if err != nil || addr == "" {
			return fmt.Errorf("no address yet: %v", err)
		}
		return nil
	})
	return addr
}

// freePort is a TCP port of loopback that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestTry runs the demonstration, README's first command. It checks by itself that nothing is left behind.
func TestTry(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "busybox", "curl", "nft", "ip")
	clitest.Bin(t)
	cmd := exec.Command("sh", "examples/try")
	cmd.Dir = clitest.Source()
	cmd.Env = append(os.Environ(), "CI=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); !strings.HasPrefix(lines[len(lines)-1], "Shown in ") {
		t.Errorf("the last line is %q, want one that says what was shown", lines[len(lines)-1])
	}
}

// TestDebian takes a real Debian root from mmdebstrap through build (with apt-get), push, serve, fetch,
// unpack and run, and asks the web server in it through a published port.
func TestDebian(t *testing.T) {
	clitest.Need(t, "mmdebstrap", "curl")
	h := newHost(t)
	cache := filepath.Join(os.TempDir(), "ctr-test-debian-bookworm.tar") // an hour's worth of runs on one machine
	if st, err := os.Stat(cache); err != nil || time.Since(st.ModTime()) > time.Hour {
		if _, stderr, status := h.try("mmdebstrap", "--variant=minbase", "bookworm", h.dir+"/debian.tar"); status != 0 {
			t.Skipf("SKIP: needs Debian's packages: mmdebstrap: %s", stderr)
		}
		if err := os.Rename(h.dir+"/debian.tar", cache); err != nil {
			t.Fatal(err)
		}
	}
	h.write("base/Dockerfile", "FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n")
	h.do("cp", cache, h.dir+"/base/debian.tar")
	h.do("ctr-build", "-q", "-t", "debian:bookworm", "base")

	h.write("site/index.html", "from a Debian root\n")
	h.write("site/Dockerfile", `FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light \
 && rm -rf /var/lib/apt/lists/*
COPY index.html /var/www/html/index.html
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off; error_log /dev/stderr info;"]
`)
	h.do("ctr-build", "-t", "site", "site")
	addr := h.serve(h.dir + "/registry")
	h.do("ctr-push", "site", addr+"/site:1")
	h.do("ctr-fetch", "--layout", h.dir+"/other", addr+"/site:1")
	h.do("ctr-fetch", "fsck", "oci:"+h.dir+"/other")
	h.do("ctr-fetch", "unpack", "oci:"+h.dir+"/other:"+addr+"/site:1", "web")
	network := "deb" + strconv.Itoa(os.Getpid())
	port := strconv.Itoa(freePort(t))
	h.do("ctr-net", "create", network)
	h.do("ctr-net", "attach", "--publish", "127.0.0.1:"+port+":80", "web", network)
	t.Cleanup(func() {
		h.try("ctr-run", "delete", "-f", network)
		h.try("ctr-net", "detach", "web")
		h.try("ctr-net", "rm", network)
	})
	h.do("ctr-run", "supervise", "--detach", "--bundle", "web", network)
	clitest.Eventually(t, func() error {
		out, stderr, status := h.try("curl", "-sS", "--max-time", "5", "http://127.0.0.1:"+port+"/")
		if status != 0 || out != "from a Debian root\n" {
			return fmt.Errorf("curl: exit status %d: %s%s", status, out, stderr)
		}
		return nil
	})
	h.do("ctr-run", "stop", network)
	h.do("ctr-run", "delete", network)
	h.do("ctr-net", "detach", "web")
	h.do("ctr-net", "rm", network)
}

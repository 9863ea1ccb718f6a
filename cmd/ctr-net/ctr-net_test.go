// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

func TestScripts(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "nft", "ip", "busybox", "jq")
	t.Setenv("CNI_PATH", filepath.Join(clitest.Bin(t), "..", "libexec", "ctr", "cni"))
	clitest.Scripts(t, "testdata")
}

// TestKilled kills attach and detach with -9 at random moments; gc, or the same command again, makes good.
func TestKilled(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "nft", "ip")
	bin := clitest.Bin(t)
	dir := t.TempDir()
	env := []string{"CTR_ROOT=" + dir + "/root", "CTR_RUN=" + dir + "/run", "CNI_PATH=" + filepath.Join(bin, "..", "libexec", "ctr", "cni")}
	tool := func(args ...string) string {
		t.Helper()
		out, said, status := clitest.Tool(t, env, append([]string{"ctr-net"}, args...)...)
		if status != 0 {
			t.Errorf("ctr-net %s: exit status %d: %s", strings.Join(args, " "), status, said)
		}
		return out
	}
	tool("create", "net")
	bridge := strings.Fields(strings.Split(tool("list"), "\n")[1])[3]
	bundle := dir + "/b"
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	config := []byte(`{"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "network"}]}}`)
	if err := os.WriteFile(bundle+"/config.json", config, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		args := []string{"attach", "--publish", "80", bundle, "net"}
		if i%3 == 2 {
			tool(args...)
			args = []string{"detach", bundle}
		}
		cmd := exec.Command(filepath.Join(bin, "ctr-net"), args...)
		cmd.Env = append(os.Environ(), env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		// The plugin that was at work ends by itself; a DEL in between would be undone by its ADD.
		waitForPlugins(t, dir)
		if i%2 == 0 {
			os.Rename(bundle, bundle+".gone") // as if by rm -r
			tool("gc")
			os.Rename(bundle+".gone", bundle)
		}
		tool("gc")
		tool("detach", bundle)
		for _, f := range []string{"/run/attachments/*.json", "/run/netns/*", "/run/leases/net/[0-9]*"} {
			if left, _ := filepath.Glob(dir + f); len(left) > 0 {
				t.Fatalf("round %d (%s): left: %v", i, args[0], left)
			}
		}
		if out, err := exec.Command("ip", "-o", "link", "show", "master", bridge).Output(); err == nil && len(out) > 0 {
			t.Fatalf("round %d (%s): left: %s", i, args[0], out)
		}
		if out, err := exec.Command("nft", "list", "table", "inet", bridge).Output(); err == nil && strings.Contains(string(out), "dnat ip") {
			t.Fatalf("round %d (%s): left: %s", i, args[0], out)
		}
	}
	tool("rm", "net")
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), dir) {
		t.Errorf("left mounts below %s", dir)
	}
}

func waitForPlugins(t *testing.T, dir string) {
	clitest.Eventually(t, func() error {
		all, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, p := range all {
			if env, err := os.ReadFile(p); err == nil && strings.Contains(string(env), "CNI_NETNS="+dir) {
				return fmt.Errorf("a plugin is at work: %s", p)
			}
		}
		return nil
	})
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/place"
)

// A host is a store of its own that has to leave nothing behind.
type host struct {
	*Store
	t   *testing.T
	ctx context.Context
}

func newHost(t *testing.T) *host {
	t.Helper()
	clitest.Root(t)
	clitest.Need(t, "nft")
	t.Setenv("CNI_PATH", filepath.Join(clitest.Bin(t), "..", "libexec", "ctr", "cni"))
	dir := t.TempDir()
	h := &host{NewStore(filepath.Join(dir, "root"), filepath.Join(dir, "run")), t, t.Context()}
	t.Cleanup(func() {
		networks, err := h.List()
		if err != nil {
			t.Error(err)
		}
		h.clean(networks)
	})
	return h
}

// clean detaches what a failed test has left, removes the networks, and wants nothing of them in the kernel.
func (h *host) clean(networks []*Network) {
	h.t.Helper()
	ctx := context.Background()
	entries, err := h.entries()
	if err != nil {
		h.t.Error(err)
	}
	for _, e := range entries {
		if !h.t.Failed() {
			h.t.Errorf("left attached: %s", e.Bundle)
		}
		if err := h.leave(ctx, e, e.Attachments); err != nil {
			h.t.Error(err)
		}
	}
	for _, n := range networks {
		if leases, _ := filepath.Glob(filepath.Join(h.leases(n.Name), "*[.:]*")); len(leases) > 0 {
			for _, l := range leases {
				if !strings.Contains(l, "last_reserved_ip") {
					h.t.Errorf("left: lease %s", l)
				}
			}
		}
		if n.Bridge != "" {
			out, _ := exec.Command("ip", "-o", "link", "show", "master", n.Bridge).Output()
			if len(out) > 0 {
				h.t.Errorf("left on bridge: %s", out)
			}
		}
		if err := h.Remove(ctx, n.Name); err != nil {
			h.t.Error(err)
		}
		if !n.own {
			continue
		}
		if exec.Command("ip", "link", "show", n.Bridge).Run() == nil {
			h.t.Errorf("left: bridge %s", n.Bridge)
		}
		if exec.Command("nft", "list", "table", "inet", n.Bridge).Run() == nil {
			h.t.Errorf("left: table %s", n.Bridge)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), h.run) {
		h.t.Errorf("left: mounts below %s", h.run)
	}
	if handles, _ := os.ReadDir(place.Netns(h.run)); len(handles) > 0 {
		h.t.Errorf("left: handles %v", handles)
	}
}

func (h *host) create(name string, o CreateOptions) *Network {
	h.t.Helper()
	n, err := h.Create(h.ctx, name, o)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *host) bundle(name string) *bundle.Bundle {
	h.t.Helper()
	b, err := bundle.Create(filepath.Join(h.t.TempDir(), name), &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: "rootfs"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *host) attach(b *bundle.Bundle, o AttachOptions, networks ...string) *Record {
	h.t.Helper()
	var joins []Join
	for _, n := range networks {
		joins = append(joins, Join{Network: n})
	}
	r, err := h.Attach(h.ctx, b, joins, o)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *host) detach(bundles ...*bundle.Bundle) {
	h.t.Helper()
	for _, b := range bundles {
		if err := h.Detach(h.ctx, b); err != nil {
			h.t.Error(err)
		}
		if _, err := os.Stat(b.Path(bundle.NetworkFile)); err == nil {
			h.t.Errorf("detach left %s", b.Path(bundle.NetworkFile))
		}
	}
}

func publish(t *testing.T, specs ...string) (all []Publish) {
	t.Helper()
	for _, s := range specs {
		p, err := ParsePublish(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p...)
	}
	return all
}

// within runs f in a network namespace; sockets that f makes stay there.
func within(t *testing.T, netns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- func() error {
			ns, err := os.Open(netns)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// serve answers HTTP requests in the namespace with a name and the address of who asks.
func serve(t *testing.T, netns, addr, name string) {
	t.Helper()
	var l net.Listener
	within(t, netns, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s", name, from)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

// get asks from within a namespace ("" is the host's) and returns the answer, or "" if there is none.
func get(t *testing.T, netns, addr string) (answer string) {
	t.Helper()
	ask := func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(c)
		_, answer, _ = strings.Cut(string(b), "\r\n\r\n")
		return err
	}
	if netns == "" {
		if err := ask(); err != nil {
			t.Log(err)
		}
		return answer
	}
	within(t, netns, ask)
	return answer
}

// lookup finds a name in a bundle's hosts file.
func lookup(t *testing.T, b *bundle.Bundle, name string) string {
	t.Helper()
	data, err := os.ReadFile(b.Path("etc/hosts"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		w := strings.Fields(line)
		for _, x := range w[min(1, len(w)):] {
			if x == name {
				return w[0]
			}
		}
	}
	return ""
}

// hostAddress is an address of this host that is not loopback.
func hostAddress(t *testing.T) string {
	t.Helper()
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; ip.IsGlobalUnicast() && ip.To4() != nil {
			return ip.String()
		}
	}
	t.Skip("SKIP: this host has no address but loopback")
	return ""
}

func dump(t *testing.T, v any) {
	b, _ := json.MarshalIndent(v, "", " ")
	t.Logf("%s", b)
}

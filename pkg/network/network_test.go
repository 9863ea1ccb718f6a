// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
)

func TestAttach(t *testing.T) {
	h := newHost(t)
	h.create("front", CreateOptions{})
	web, client := h.bundle("web"), h.bundle("client")
	before, _ := os.ReadFile(web.Path(bundle.ConfigFile))
	w := h.attach(web, AttachOptions{Publish: publish(t, "80", "127.0.0.1::80"), Aliases: []string{"www"}}, "front")
	inode := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat(web.Path("etc/hosts"), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	ino := inode()
	f, _ := os.OpenFile(web.Path("etc/hosts"), os.O_APPEND|os.O_WRONLY, 0)
	fmt.Fprintln(f, "192.0.2.99\tfrom-the-container")
	f.Close()
	c := h.attach(client, AttachOptions{}, "front")
	if inode() != ino {
		t.Error("the hosts file is another file after a neighbour joined")
	}
	if got := lookup(t, web, "from-the-container"); got != "192.0.2.99" {
		t.Errorf("the container's own line is gone: %q", got)
	}
	serve(t, w.Netns, ":80", "web")
	all, local := w.Ports[0], w.Ports[1]
	ip := lookup(t, client, "www")
	if ip == "" || ip != lookup(t, client, "web") {
		t.Fatalf("names of web in client's hosts file: %q", ip)
	}
	clientIP := lookup(t, web, "client")
	addr := hostAddress(t)
	at := func(host string, p Port) string { return fmt.Sprintf("%s:%d", host, p.HostPort) }
	for _, x := range []struct{ what, netns, addr, want string }{
		{"by name", c.Netns, ip + ":80", "web " + clientIP},
		{"from the host by loopback", "", at("127.0.0.1", all), "web "},
		{"from the host by its address, source kept", "", at(addr, all), "web " + addr},
		{"from a neighbour", c.Netns, at(addr, all), "web "},
		{"from itself", w.Netns, at(addr, all), "web "},
		{"loopback publish from the host", "", at("127.0.0.1", local), "web "},
	} {
		if got := get(t, x.netns, x.addr); !strings.HasPrefix(got, x.want) {
			t.Errorf("%s: got %q, want %q", x.what, got, x.want)
		}
	}
	if got := get(t, c.Netns, at(addr, local)); got != "" {
		t.Errorf("a loopback publish answers a neighbour: %q", got)
	}
	// CVE-2020-8558: packets for the host's loopback must not come in by the bridge.
	within(t, c.Netns, func() error {
		for _, cmd := range [][]string{
			{"sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"},
			{"ip", "addr", "del", "127.0.0.1/8", "dev", "lo"},
			{"ip", "route", "add", "127.0.0.1/32", "via", c.Attachments[0].Gateways()[0].String(), "src", clientIP},
		} {
			if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%v: %s", err, out)
			}
		}
		return nil
	})
	if got := get(t, c.Netns, at("127.0.0.1", local)); got != "" {
		t.Errorf("a neighbour reaches a loopback publish: %q", got)
	}
	// No IPv6 on a network without it.
	within(t, w.Netns, func() error {
		out, err := exec.Command("ip", "-6", "-o", "addr", "show", "dev", "eth0").Output()
		if len(out) > 0 {
			t.Errorf("IPv6 on an IPv4 network: %s", out)
		}
		return err
	})
	spec, err := web.Config()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	if spec.Linux.Namespaces[i].Path != w.Netns || len(spec.Mounts) != 3 || spec.Hostname != "web" {
		dump(t, spec)
		t.Error("config.json is not what attach should make of it")
	}
	if again := h.attach(web, AttachOptions{}, "front"); again.ID != w.ID {
		t.Error("the same command twice attached twice")
	}
	err = h.Remove(h.ctx, "front")
	if !errors.Is(err, fault.ErrBusy) || !strings.Contains(err.Error(), web.Dir()) {
		t.Errorf("remove with members: %v", err)
	}
	h.detach(client)
	if got := lookup(t, web, "client"); got != "" {
		t.Errorf("who left is still in the hosts file: %s", got)
	}
	h.detach(web, web)
	after, _ := web.Config()
	if len(after.Mounts) != 0 || after.Linux.Namespaces[len(after.Linux.Namespaces)-1].Path != "" {
		t.Errorf("config.json before: %s after: %v", before, after)
	}
	if got := get(t, "", at("127.0.0.1", all)); got != "" {
		t.Errorf("the port answers after detach: %q", got)
	}
}

func TestIsolation(t *testing.T) {
	h := newHost(t)
	h.create("a", CreateOptions{})
	h.create("b", CreateOptions{})
	h.create("inside", CreateOptions{Internal: true})
	one, two, three := h.bundle("one"), h.bundle("two"), h.bundle("three")
	r1 := h.attach(one, AttachOptions{Publish: publish(t, "80")}, "inside", "a")
	r2 := h.attach(two, AttachOptions{}, "b")
	r3 := h.attach(three, AttachOptions{}, "inside")
	serve(t, r1.Netns, ":80", "one")
	if r1.Attachments[0].DefaultRoute || !r1.Attachments[1].DefaultRoute {
		t.Error("the default route is not that of the first network with a way out")
	}
	in, out := r1.Attachments[0].Addresses()[0].String(), r1.Attachments[1].Addresses()[0].String()
	published := fmt.Sprintf("%s:%d", hostAddress(t), r1.Ports[0].HostPort)
	for _, x := range []struct {
		what, netns, addr string
		want              bool
	}{
		{"same internal network", r3.Netns, in + ":80", true},
		{"another network", r2.Netns, out + ":80", false},
		{"another network, published", r2.Netns, published, true},
		{"internal network to another, published", r3.Netns, published, false},
		{"into an internal network", r2.Netns, in + ":80", false},
		{"from the host", "", out + ":80", true},
	} {
		if got := get(t, x.netns, x.addr); (got != "") != x.want {
			t.Errorf("%s: got %q, want an answer: %v", x.what, got, x.want)
		}
	}
	if _, err := h.Attach(h.ctx, three, []Join{{Network: "inside"}}, AttachOptions{Publish: publish(t, "80")}); err == nil {
		t.Error("a port is published on an internal network")
	}
	// Joined and left while attached.
	if r2 = h.attach(two, AttachOptions{}, "b", "a"); len(r2.Attachments) != 2 || r2.Attachments[1].Interface != "eth1" {
		t.Fatalf("joining a second network: %v", r2.Attachments)
	}
	if got := get(t, r2.Netns, out+":80"); got == "" || lookup(t, two, "one") != out {
		t.Errorf("after joining: %q", got)
	}
	if err := h.Detach(h.ctx, two, "a"); err != nil {
		t.Fatal(err)
	}
	if got := get(t, r2.Netns, out+":80"); got != "" || lookup(t, two, "one") != "" {
		t.Errorf("after leaving: %q", got)
	}
	h.detach(one, two, three)
}

func TestModes(t *testing.T) {
	h := newHost(t)
	b := h.bundle("b")
	h.attach(b, AttachOptions{}, "host")
	spec, _ := b.Config()
	if len(spec.Linux.Namespaces) != 1 {
		t.Errorf("host: namespaces %v", spec.Linux.Namespaces)
	}
	if _, err := h.Attach(h.ctx, b, []Join{{Network: "none"}}, AttachOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("from host to none without detach: %v", err)
	}
	h.detach(b)
	h.attach(b, AttachOptions{Hostname: "lonely"}, "none")
	spec, _ = b.Config()
	if len(spec.Linux.Namespaces) != 2 || spec.Hostname != "lonely" || lookup(t, b, "lonely") != "127.0.1.1" {
		t.Errorf("none: %v %q", spec.Linux.Namespaces, spec.Hostname)
	}
	h.detach(b)
	if _, err := h.Attach(h.ctx, b, []Join{{Network: "missing"}}, AttachOptions{}); !errors.Is(err, fs.ErrNotExist) || len(fault.Hints(err)) == 0 {
		t.Errorf("missing network: %v %v", err, fault.Hints(err))
	}
}

// TestTogether attaches 20 bundles at the same time.
func TestTogether(t *testing.T) {
	h := newHost(t)
	h.create("crowd", CreateOptions{})
	const n = 20
	var bundles [n]*bundle.Bundle
	var records [n]*Record
	var wg sync.WaitGroup
	errs := make([]error, n)
	ports := publish(t, "80")
	for i := range n {
		bundles[i] = h.bundle(fmt.Sprintf("m%d", i))
		wg.Go(func() {
			records[i], errs[i] = h.Attach(h.ctx, bundles[i], []Join{{Network: "crowd"}}, AttachOptions{Publish: ports})
		})
	}
	wg.Wait()
	addrs, taken := map[netip.Addr]bool{}, map[uint16]bool{}
	for i, r := range records {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		addrs[r.Attachments[0].Addresses()[0]] = true
		taken[r.Ports[0].HostPort] = true
	}
	if len(addrs) != n || len(taken) != n {
		t.Errorf("%d addresses and %d ports for %d bundles", len(addrs), len(taken), n)
	}
	for i, b := range bundles {
		for j := range bundles {
			if got := lookup(t, b, fmt.Sprintf("m%d", j)); got != records[j].Attachments[0].Addresses()[0].String() {
				t.Errorf("m%d in the hosts file of m%d: %q", j, i, got)
			}
		}
	}
	for i := range n {
		wg.Go(func() { errs[i] = h.Detach(h.ctx, bundles[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestPortInUse(t *testing.T) {
	h := newHost(t)
	h.create("front", CreateOptions{})
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().(*net.TCPAddr).Port
	a, b := h.bundle("a"), h.bundle("b")
	try := func(b *bundle.Bundle, spec string) (*Record, error) {
		return h.Attach(h.ctx, b, []Join{{Network: "front"}}, AttachOptions{Publish: publish(t, spec)})
	}
	_, err = try(a, fmt.Sprintf("127.0.0.1:%d:80", busy))
	if !errors.Is(err, fault.ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("a socket's port: %v", err)
	}
	r, err := try(a, "80")
	if err != nil {
		t.Fatal(err)
	}
	_, err = try(b, fmt.Sprintf("%d:80", r.Ports[0].HostPort))
	if !errors.Is(err, fault.ErrBusy) || !strings.Contains(err.Error(), a.Dir()) {
		t.Errorf("another bundle's port: %v", err)
	}
	// Another run directory sees it in the kernel.
	h2 := newHost(t)
	h2.create("other", CreateOptions{})
	c := h2.bundle("c")
	_, err = h2.Attach(h2.ctx, c, []Join{{Network: "other"}}, AttachOptions{Publish: publish(t, fmt.Sprintf("%d:80", r.Ports[0].HostPort))})
	if !errors.Is(err, fault.ErrBusy) || !strings.Contains(err.Error(), r.ID) {
		t.Errorf("a port of another run directory: %v", err)
	}
	// The first free one of a range.
	r2, err := try(b, fmt.Sprintf("%d-%d:80", r.Ports[0].HostPort, r.Ports[0].HostPort+20))
	if err != nil || r2.Ports[0].HostPort <= r.Ports[0].HostPort {
		t.Errorf("a range: %v %v", r2, err)
	}
	h.detach(a, b)
}

func TestUDP(t *testing.T) {
	h := newHost(t)
	h.create("front", CreateOptions{})
	b := h.bundle("b")
	r := h.attach(b, AttachOptions{Publish: publish(t, "127.0.0.1::5353/udp")}, "front")
	var pc net.PacketConn
	within(t, r.Netns, func() (err error) { pc, err = net.ListenPacket("udp4", ":5353"); return err })
	defer pc.Close()
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	}()
	c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", r.Ports[0].HostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(c, "echo")
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if string(buf[:n]) != "ECHO" {
		t.Errorf("got %q %v, want ECHO", buf[:n], err)
	}
	h.detach(b)
}

func TestIPv6(t *testing.T) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("SKIP: this kernel has no IPv6")
	}
	h := newHost(t)
	n := h.create("six", CreateOptions{IPv6: true})
	if !n.IPv6() || !n.IPv4() {
		t.Fatalf("subnets %v", n.Subnets)
	}
	a, b := h.bundle("a"), h.bundle("b")
	r := h.attach(a, AttachOptions{Publish: publish(t, "80")}, "six")
	c := h.attach(b, AttachOptions{}, "six")
	serve(t, r.Netns, "[::]:80", "a")
	addrs := r.Attachments[0].Addresses()
	if len(addrs) != 2 || !addrs[1].Is6() {
		t.Fatalf("addresses %v", addrs)
	}
	if got := get(t, c.Netns, "["+addrs[1].String()+"]:80"); got == "" {
		t.Error("no answer by IPv6")
	}
	var gw6 string
	for _, g := range n.Gateways {
		if g.Is6() {
			gw6 = g.String()
		}
	}
	if got := get(t, "", fmt.Sprintf("[%s]:%d", gw6, r.Ports[0].HostPort)); got == "" {
		t.Error("no answer on a published port by IPv6")
	}
	h.detach(a, b)
}

// foreign is a conflist that is not ours, with a plugin of the test at its end.
func (h *host) foreign(name, bridge, last string) {
	h.t.Helper()
	doc := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [
  {"type": "bridge", "bridge": %q, "isDefaultGateway": true, "hairpinMode": true, "ipMasq": true, "ipMasqBackend": "nftables",
   "ipam": {"type": "host-local", "subnet": "10.62.77.0/24"}}, %s]}`, name, bridge, last)
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path(name), []byte(doc), 0o644); err != nil {
		h.t.Fatal(err)
	}
	// The plugins leave their bridge and their tables.
	exists := func(table string) bool {
		return exec.Command("nft", append([]string{"list", "table"}, strings.Fields(table)...)...).Run() == nil
	}
	var clean []string
	for _, table := range []string{"ip cni_hostport", "ip6 cni_hostport", "inet cni_plugins_masquerade", "ip nat"} {
		if !exists(table) {
			clean = append(clean, table)
		}
	}
	h.t.Cleanup(func() {
		exec.Command("ip", "link", "del", bridge).Run()
		for _, table := range clean {
			if exists(table) {
				exec.Command("nft", append([]string{"delete", "table"}, strings.Fields(table)...)...).Run()
			}
		}
	})
}

func (h *host) plugin(name, script string) {
	h.t.Helper()
	dir := h.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.t.Setenv("CNI_PATH", dir+":"+os.Getenv("CNI_PATH"))
}

// TestForeign uses a conflist as another tool would write it, ports by the portmap plugin included.
func TestForeign(t *testing.T) {
	h := newHost(t)
	h.foreign("foreign", "tfo"+owner(h.run), `{"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}`)
	b := h.bundle("b")
	r := h.attach(b, AttachOptions{Publish: publish(t, "80")}, "foreign")
	serve(t, r.Netns, ":80", "b")
	if got := get(t, "", fmt.Sprintf("127.0.0.1:%d", r.Ports[0].HostPort)); got == "" {
		t.Error("no answer on the published port")
	}
	h.detach(b)
	if out, _ := exec.Command("nft", "list", "ruleset").Output(); bytes.Contains(out, []byte(r.ID)) {
		t.Errorf("rules are left: %s", out)
	}
}

// TestUndo lets the second plugin of a chain fail, and answer nonsense.
func TestUndo(t *testing.T) {
	for name, script := range map[string]string{
		"fails":    `[ $CNI_COMMAND = DEL ] && exit 0; echo '{"cniVersion":"1.0.0","code":11,"msg":"not now"}'; exit 1`,
		"nonsense": `[ $CNI_COMMAND = DEL ] && exit 0; echo '{"ips": 7'`,
		"missing":  "",
		"hopeless": `exit 3`,
		"floods":   `[ $CNI_COMMAND = DEL ] && exit 0; head -c 3000000 /dev/zero`,
		"hangs":    `[ $CNI_COMMAND = DEL ] && exit 0; sleep 300`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if script != "" {
				h.plugin("last", script)
			}
			h.foreign("broken", "tun"+owner(h.run), `{"type": "last"}`)
			h.create("good", CreateOptions{})
			b := h.bundle("b")
			before, _ := os.ReadFile(b.Path(bundle.ConfigFile))
			ctx := h.ctx
			if name == "hangs" { // until the user has enough
				c, cancel := context.WithTimeout(ctx, 2*time.Second)
				defer cancel()
				ctx = c
			}
			_, err := h.Attach(ctx, b, []Join{{Network: "good"}, {Network: "broken"}}, AttachOptions{Publish: publish(t, "80")})
			if err == nil {
				t.Fatal("no error")
			}
			if name == "fails" && !errors.Is(err, fault.ErrTryAgain) {
				t.Errorf("CNI's code 11 is not try again: %v", err)
			}
			after, _ := os.ReadFile(b.Path(bundle.ConfigFile))
			if !bytes.Equal(before, after) {
				t.Errorf("config.json has changed: %s", after)
			}
			if name == "hopeless" {
				// Its DEL fails too: gc tries again.
				if removed, err := h.GC(h.ctx); err == nil || len(removed) > 0 {
					t.Errorf("gc: %v %v", removed, err)
				}
				h.plugin("last", `cat >/dev/null`)
				if removed, err := h.GC(h.ctx); err != nil || len(removed) != 1 {
					t.Errorf("gc: %v %v", removed, err)
				}
			}
			if entries, _ := h.entries(); len(entries) > 0 {
				t.Errorf("an entry is left: %v", entries)
			}
			if _, err := Read(b); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("network.json is left: %v", err)
			}
			leases, _ := filepath.Glob(filepath.Join(h.run, "leases", "*", "10.*"))
			if len(leases) > 0 {
				t.Errorf("leases are left: %v", leases)
			}
			if out, _ := exec.Command("nft", "list", "table", "inet", "cni_plugins_masquerade").Output(); bytes.Contains(out, []byte("id: b-"+owner(h.run))) {
				t.Errorf("rules are left: %s", out)
			}
			if name == "missing" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a missing plugin: %v", err)
			}
		})
	}
}

func TestGC(t *testing.T) {
	h := newHost(t)
	h.create("front", CreateOptions{})
	lost, kept := h.bundle("lost"), h.bundle("kept")
	r := h.attach(lost, AttachOptions{Publish: publish(t, "80")}, "front")
	k := h.attach(kept, AttachOptions{}, "front")
	if err := os.RemoveAll(lost.Dir()); err != nil {
		t.Fatal(err)
	}
	removed, err := h.GC(h.ctx)
	if err != nil || len(removed) != 1 || !strings.Contains(removed[0], r.ID) {
		t.Errorf("gc: %v %v", removed, err)
	}
	if got := lookup(t, kept, "lost"); got != "" {
		t.Errorf("the dead bundle is still in hosts: %s", got)
	}
	// A tool that died at each of its steps.
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"namespace gone", func() error { return dropNetns(k.Netns) }},
		{"joining", func() error {
			e, err := h.entry(k.ID)
			if err != nil {
				return err
			}
			e.Attachments[0].State = Joining
			return h.put(e)
		}},
		{"network.json lost", func() error { return kept.Remove(bundle.NetworkFile) }},
		{"entry lost", func() error { return os.Remove(h.entryPath(k.ID)) }},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		removed, err := h.GC(h.ctx)
		if err != nil || len(removed) == 0 {
			t.Errorf("gc after %s: %v %v", step.what, removed, err)
		}
		if entries, _ := h.entries(); len(entries) > 0 {
			t.Errorf("gc after %s: entries are left", step.what)
		}
		k = h.attach(kept, AttachOptions{}, "front")
	}
	if removed, err := h.GC(h.ctx); err != nil || len(removed) > 0 {
		t.Errorf("gc of the living: %v %v", removed, err)
	}
	h.detach(kept)
}

// TestApply flushes the packet filter, then takes the namespace away as a reboot does.
func TestApply(t *testing.T) {
	h := newHost(t)
	n := h.create("front", CreateOptions{})
	b := h.bundle("b")
	r := h.attach(b, AttachOptions{Publish: publish(t, "80"), Aliases: []string{"alias"}}, "front")
	serve(t, r.Netns, ":80", "b")
	port := fmt.Sprintf("127.0.0.1:%d", r.Ports[0].HostPort)
	if err := dropTable(h.ctx, n.Bridge); err != nil {
		t.Fatal(err)
	}
	if get(t, "", port) != "" {
		t.Error("the port answers without rules")
	}
	if err := h.Apply(h.ctx); err != nil {
		t.Fatal(err)
	}
	if get(t, "", port) == "" {
		t.Error("no answer after apply")
	}
	if err := dropNetns(r.Netns); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.run); err != nil {
		t.Fatal(err)
	}
	if err := h.Apply(h.ctx, b); err != nil {
		t.Fatal(err)
	}
	r2, err := Read(b)
	if err != nil || r2.ID == r.ID || !slices.Equal(r2.Ports, r.Ports) || lookup(t, b, "alias") == "" {
		t.Fatalf("after a reboot: %v %v", r2, err)
	}
	serve(t, r2.Netns, ":80", "b")
	if get(t, "", port) == "" {
		t.Error("no answer after apply of the bundle")
	}
	h.detach(b)
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
)

// Files in the bundle's etc directory, bound over those of the root filesystem.
const (
	hostsFile    = "hosts"
	resolvFile   = "resolv.conf"
	hostnameFile = "hostname"
)

// hostsEnd ends our part of a hosts file. What a container has written below it stays.
const hostsEnd = "# ctr-net keeps the lines above; lines below stay as they are\n"

// maxEtcBytes bounds what is read back from a hosts file: the container may write to it.
const maxEtcBytes = 1 << 20

// hosts is our part of a member's hosts file: its own names, what was asked for, and the other members of its
// networks.
func (r *Record) hosts(others []*entry) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	line := func(a fmt.Stringer, names ...string) { fmt.Fprintf(&b, "%s\t%s\n", a, strings.Join(names, " ")) }
	var gateway netip.Addr
	own := 0
	for _, a := range r.Attachments {
		if a.State == Leaving {
			continue
		}
		for _, addr := range a.Addresses() {
			line(addr, r.names(a)...)
			own++
		}
		if g := a.Gateways(); a.DefaultRoute && len(g) > 0 {
			gateway = g[0]
		}
	}
	if own == 0 && r.Hostname != "" {
		b.WriteString("127.0.1.1\t" + r.Hostname + "\n")
	}
	if gateway.IsValid() {
		line(gateway, "host.docker.internal", "host.containers.internal")
	}
	for _, h := range r.ExtraHosts {
		addr := h.Address
		if addr == hostGateway {
			if !gateway.IsValid() {
				continue
			}
			addr = gateway.String()
		}
		b.WriteString(addr + "\t" + h.Name + "\n")
	}
	for _, a := range r.Attachments {
		for _, e := range others {
			o := e.attachment(a.Network)
			if a.State == Leaving || e.ID == r.ID || o == nil || o.State != Joined {
				continue
			}
			for _, addr := range o.Addresses() {
				line(addr, e.names(o)...)
			}
		}
	}
	return b.String()
}

const hostGateway = "host-gateway"

// refreshHosts rewrites the hosts files of all members of the networks. The caller holds the lock. A bundle
// that is gone is no error: gc finds it.
func (s *Store) refreshHosts(all []*entry, networks []string) error {
	var errs []error
	for _, e := range all {
		if !slices.ContainsFunc(networks, func(n string) bool { return e.attachment(n) != nil }) {
			continue
		}
		err := writeHosts(filepath.Join(e.Bundle, bundle.EtcDir, hostsFile), e.hosts(all), false)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// writeHosts replaces our part of the hosts file at path, in place: the inode is bound into a container.
func writeHosts(path, ours string, create bool) error {
	flags := os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("%s: want a regular file", path)
	}
	if create {
		if err := f.Chmod(0o644); err != nil { // everybody in the container reads it, whatever the umask here
			return err
		}
	}
	old, err := io.ReadAll(io.LimitReader(f, maxEtcBytes+1))
	if err != nil {
		return err
	}
	text := []byte(ours + hostsEnd)
	if i := bytes.Index(old, []byte(hostsEnd)); i >= 0 && len(old) <= maxEtcBytes {
		text = append(text, old[i+len(hostsEnd):]...)
	}
	if bytes.Equal(text, old) {
		return nil
	}
	// One write, and if the file gets shorter one that covers all of the old text with empty lines: who reads
	// at this moment sees no half of a line.
	n := len(text)
	if pad := len(old) - n; pad > 0 {
		text = append(text, bytes.Repeat([]byte("\n"), pad)...)
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(n))
}

// writeEtc makes the files that do not depend on other members.
func (r *Record) writeEtc(b *bundle.Bundle) error {
	dir := b.Path(bundle.EtcDir)
	if err := writeInPlace(filepath.Join(dir, hostnameFile), []byte(r.Hostname+"\n")); err != nil {
		return err
	}
	resolv, err := r.resolvConf()
	if err != nil {
		return err
	}
	return writeInPlace(filepath.Join(dir, resolvFile), resolv)
}

func writeInPlace(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(data)))
}

// resolvConf is the host's resolv.conf without resolvers that only the host's namespace reaches, or with those
// that were asked for.
func (r *Record) resolvConf() ([]byte, error) {
	var host []byte
	// systemd-resolved's own file names the resolvers behind 127.0.0.53.
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && (host == nil || remote(data)) {
			host = data
		}
		if r.Mode == HostMode || remote(host) {
			break
		}
	}
	if r.Mode == HostMode && len(r.DNS) == 0 {
		return host, nil
	}
	return filterResolv(host, r.DNS), nil
}

func nameserver(line string) (addr string, ok bool) {
	w := strings.Fields(line)
	if len(w) < 2 || w[0] != "nameserver" {
		return "", false
	}
	return w[1], true
}

func isLoopback(addr string) bool {
	a, err := netip.ParseAddr(addr)
	return err == nil && a.Unmap().IsLoopback()
}

// remote says whether a resolv.conf names a resolver outside of the host.
func remote(data []byte) bool {
	for line := range strings.Lines(string(data)) {
		if a, ok := nameserver(line); ok && !isLoopback(a) {
			return true
		}
	}
	return false
}

// filterResolv drops loopback resolvers unless none is left, or puts others in place of all.
func filterResolv(data []byte, dns []string) []byte {
	keepLoopback := !remote(data)
	var b bytes.Buffer
	for _, a := range dns {
		b.WriteString("nameserver " + a + "\n")
	}
	for line := range strings.Lines(string(data)) {
		if a, ok := nameserver(line); ok && (len(dns) > 0 || isLoopback(a) && !keepLoopback) {
			continue
		}
		b.WriteString(line)
	}
	return b.Bytes()
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/place"
)

// sysctls are set in a new network namespace before it has an interface. An interface that is made later
// has no IPv6 until a plugin gives it an address (CVE-2020-13401: a network without IPv6 took router
// advertisements); a redirect must not lead a name's packets to a neighbour; and containers without capabilities can ping and listen on low ports: the ports of a
// namespace of one's own are nobody else's.
var sysctls = [...][2]string{
	{"net/ipv6/conf/all/accept_ra", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv6/conf/default/disable_ipv6", "1"},
	{"net/ipv4/conf/all/accept_redirects", "0"},
	{"net/ipv4/conf/default/accept_redirects", "0"},
	{"net/ipv4/ip_unprivileged_port_start", "0"},
	{"net/ipv4/ping_group_range", "0 2147483647"},
}

// makeNetns makes a network namespace with lo up and keeps it by a bind mount on path.
func makeNetns(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	done := make(chan error)
	go func() {
		// Never unlocked: the thread, which is in the new namespace, ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("new network namespace: %w", err)
			}
			for _, c := range sysctls {
				if err := sysctl(c[0], c[1]); err != nil {
					return err
				}
			}
			lo, err := netlink.LinkByName("lo")
			if err == nil {
				err = netlink.LinkSetUp(lo)
			}
			if err != nil {
				return fmt.Errorf("lo up: %w", err)
			}
			if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount handle %s: %w", path, err)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

// sysctl writes a value below /proc/sys; one that this kernel does not have needs no value.
func sysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set %s to %q: %w", name, value, err)
	}
	return nil
}

// netnsAlive says whether path is a handle on a network namespace; after a reboot it is an empty file.
func netnsAlive(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// dropNetns lets go of a namespace; it is gone when its last process is.
func dropNetns(path string) error {
	for netnsAlive(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount handle %s: %w", path, err)
		}
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *Store) netns(id string) string { return filepath.Join(place.Netns(s.run), id) }

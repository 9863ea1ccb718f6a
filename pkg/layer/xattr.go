// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayXattr says whether an attribute is overlayfs's own, of either namespace, and its name there. From
// an archive it would change what a later mount shows, so none goes in or out.
func overlayXattr(name string) (rest string, private bool) {
	for _, ns := range []string{"trusted.overlay.", "user.overlay."} {
		if rest, ok := strings.CutPrefix(name, ns); ok {
			return rest, true
		}
	}
	return "", name == "trusted.overlay" || name == "user.overlay"
}

// hostXattr says whether an attribute belongs to the host's policy and not to the file.
func hostXattr(name string) bool {
	switch name {
	case "security.selinux", "security.ima", "security.evm", "security.SMACK64", "system.nfs4_acl":
		return true
	}
	return false
}

// procPath names a file for the calls that only take paths. The link in /proc is followed, name is not.
func procPath(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// listXattrs reads all extended attributes of an open file; a file system without any has none.
func listXattrs(fd int) (map[string][]byte, error) {
	return readXattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(n string, b []byte) (int, error) { return unix.Fgetxattr(fd, n, b) })
}

// listXattrsAt is listXattrs for a file that cannot be opened: link, device, FIFO.
func listXattrsAt(dir int, name string) (map[string][]byte, error) {
	p := procPath(dir, name)
	return readXattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(p, b) },
		func(n string, b []byte) (int, error) { return unix.Lgetxattr(p, n, b) })
}

func readXattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string][]byte, error) {
	var small [256]byte
	names, err := grow(small[:], list)
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	all := map[string][]byte{}
	for _, n := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		v, err := grow(nil, func(b []byte) (int, error) { return get(n, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %s: %w", n, err)
		}
		all[n] = v
	}
	return all, nil
}

// grow calls read with larger and larger buffers. A buffer of no bytes would ask for the size.
func grow(b []byte, read func([]byte) (int, error)) ([]byte, error) {
	if len(b) == 0 {
		b = make([]byte, 128)
	}
	for {
		n, err := read(b)
		if err == unix.ERANGE && len(b) < 1<<20 {
			b = make([]byte, 4*len(b))
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}

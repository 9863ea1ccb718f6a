// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/ctr-tools/ctr/pkg/layer"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// maxAccounts bounds a passwd or group file.
const maxAccounts = 4 << 20

// owner resolves USER[:GROUP]. Names are looked up in the state's own files. Where only a user is given,
// the group is the user's; of a number without an account, the same number.
func owner(root *rootfd.Root, spec string) (layer.Owner, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	uid, gid, err := account(root, name)
	if err != nil {
		return layer.Owner{}, err
	}
	if hasGroup {
		if gid, err = groupID(root, group); err != nil {
			return layer.Owner{}, err
		}
	}
	return layer.Owner{UID: uid, GID: gid}, nil
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n < 1<<32-1
}

func account(root *rootfd.Root, name string) (uid, gid uint32, err error) {
	if n, ok := number(name); ok {
		return n, n, nil
	}
	data, err := root.ReadFile("etc/passwd", maxAccounts)
	if err != nil {
		return 0, 0, fmt.Errorf("user %q: %w", name, hostless(err, "/etc/passwd"))
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		f := strings.Split(s.Text(), ":")
		if len(f) < 4 || f[0] != name {
			continue
		}
		uid, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		if !ok1 || !ok2 {
			return 0, 0, fmt.Errorf("user %q: found ids %q and %q in /etc/passwd, want numbers", name, f[2], f[3])
		}
		return uid, gid, nil
	}
	return 0, 0, fmt.Errorf("user %q: not in the image's /etc/passwd", name)
}

func groupID(root *rootfd.Root, name string) (uint32, error) {
	if n, ok := number(name); ok {
		return n, nil
	}
	data, err := root.ReadFile("etc/group", maxAccounts)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", name, hostless(err, "/etc/group"))
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		f := strings.Split(s.Text(), ":")
		if len(f) >= 3 && f[0] == name {
			if gid, ok := number(f[2]); ok {
				return gid, nil
			}
		}
	}
	return 0, fmt.Errorf("group %q: not in the image's /etc/group", name)
}

// hostless is an error about a path of the image, without the handle's path on the host.
func hostless(err error, p string) error {
	if errno := errnoOf(err); errno != 0 {
		return fmt.Errorf("%s in the image: %v", p, errno)
	}
	return err
}

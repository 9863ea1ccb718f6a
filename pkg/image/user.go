// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// Bounds of the account files of an image.
const (
	PasswdFile      = "/etc/passwd"
	GroupFile       = "/etc/group"
	MaxAccountBytes = 1 << 20
	maxAccountLines = 10000
	maxID           = math.MaxUint32 - 1 // 2^32-1 means "leave as it is" to chown(2)
)

// An account is a user resolved.
type account struct {
	user specs.User
	home string
}

// resolveUser reads "user", "uid", "user:group", … as Docker does, but strictly: digits alone are an id and never
// a name, whatever the image's account files hold (CVE-2016-3697, CVE-2026-46680), ids that do not fit are
// errors (CVE-2024-40635), and the primary group is among the supplementary ones (CVE-2022-2989).
func resolveUser(s string, rootfs *rootfd.Root) (account, error) {
	who, group, hasGroup := strings.Cut(s, ":")
	if who == "" {
		who = "0"
	}
	if hasGroup && group == "" {
		return account{}, fmt.Errorf("user %q: no group after the colon", s)
	}
	passwd, err := accounts(rootfs, PasswdFile)
	if err != nil {
		return account{}, err
	}
	groups, err := accounts(rootfs, GroupFile)
	if err != nil {
		return account{}, err
	}
	a := account{home: "/"}
	var entry []string
	if id, numeric, err := number(who); err != nil {
		return a, fmt.Errorf("user %q: %w", s, err)
	} else if numeric {
		a.user.UID = id
		entry = find(passwd, 2, who)
	} else if entry = find(passwd, 0, who); entry == nil {
		return a, fault.Hint(fmt.Errorf("user %q: not in the image's %s: %w", who, PasswdFile, fs.ErrNotExist), "use a number: --user UID[:GID]")
	}
	if entry != nil {
		for _, f := range []struct {
			text string
			to   *uint32
		}{{entry[2], &a.user.UID}, {entry[3], &a.user.GID}} {
			id, numeric, err := number(f.text)
			if err != nil || !numeric {
				return a, fmt.Errorf("user %q: id %q in the image's %s, want 0 to %d", s, f.text, PasswdFile, uint32(maxID))
			}
			*f.to = id
		}
		if strings.HasPrefix(entry[5], "/") && !strings.ContainsFunc(entry[5], control) {
			a.home = entry[5]
		}
	}
	if hasGroup {
		id, numeric, err := number(group)
		if err != nil {
			return a, fmt.Errorf("group in user %q: %w", s, err)
		}
		if !numeric {
			g := find(groups, 0, group)
			if g == nil {
				return a, fault.Hint(fmt.Errorf("group %q: not in the image's %s: %w", group, GroupFile, fs.ErrNotExist), "use a number: --user UID:GID")
			}
			if id, numeric, err = number(g[2]); err != nil || !numeric {
				return a, fmt.Errorf("group %q: id %q in the image's %s, want 0 to %d", group, g[2], GroupFile, uint32(maxID))
			}
		}
		a.user.GID = id
	}
	extra := []uint32{a.user.GID}
	if entry != nil && !hasGroup {
		for _, g := range groups {
			if !slices.Contains(strings.Split(g[3], ","), entry[0]) {
				continue
			}
			id, numeric, err := number(g[2])
			if err != nil || !numeric {
				return a, fmt.Errorf("group %q: id %q in the image's %s, want 0 to %d", g[0], g[2], GroupFile, uint32(maxID))
			}
			extra = append(extra, id)
		}
	}
	slices.Sort(extra)
	a.user.AdditionalGids = slices.Compact(extra)
	return a, nil
}

// number reads a string of digits; anything else is a name.
func number(s string) (id uint32, numeric bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, fmt.Errorf("id %s, want 0 to %d", s, uint32(maxID))
	}
	return uint32(n), true, nil
}

// accounts reads the entries of an account file; a file that is missing has none. Entries with too few fields
// are left out, as in getpwent(3).
func accounts(rootfs *rootfd.Root, name string) ([][]string, error) {
	if rootfs == nil {
		return nil, nil
	}
	data, err := rootfs.ReadFile(name, MaxAccountBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image's %s: %w", name, err)
	}
	fields := 7
	if name == GroupFile {
		fields = 4
	}
	lines := 0
	var entries [][]string
	for line := range strings.Lines(string(data)) {
		if lines++; lines > maxAccountLines {
			return nil, fmt.Errorf("image's %s: more than %d lines", name, maxAccountLines)
		}
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= fields && f[0] != "" && !strings.HasPrefix(f[0], "#") {
			entries = append(entries, f)
		}
	}
	return entries, nil
}

// find returns the first entry with the value in a field; ids are compared as numbers.
func find(entries [][]string, field int, value string) []string {
	want, numeric, _ := number(value)
	for _, e := range entries {
		if field == 2 && numeric {
			if n, ok, err := number(e[2]); ok && err == nil && n == want {
				return e
			}
		} else if field != 2 && e[field] == value {
			return e
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/rootfd"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
# comment:x:1:1:::
app:x:7:8:App:/home/app:/bin/sh
1000:x:0:0:trap:/root:/bin/sh
short:x:1
big:x:4294967296:1::/:
max:x:4294967294:4294967294::/max:
nohome:x:11:11:::
ctl:x:12:12::/a` + "\x07" + `b:
twice:x:20:20::/one:
twice:x:21:21::/two:
`

const groups = `root:x:0:
app:x:8:
extra:x:9:other,app
neg:x:10:app,app
huge:x:99999999999:someone
2000:x:5:
`

// accountRoot makes a root file system with account files.
func accountRoot(t testing.TB, passwd, groups string) *rootfd.Root {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{PasswdFile: passwd, GroupFile: groups} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := rootfd.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestResolveUser(t *testing.T) {
	r := accountRoot(t, passwd, groups)
	for s, want := range map[string]struct {
		uid, gid uint32
		extra    []uint32
		home     string
		fails    bool
	}{
		"":                     {0, 0, []uint32{0}, "/root", false},
		"root":                 {0, 0, []uint32{0}, "/root", false},
		"app":                  {7, 8, []uint32{8, 9, 10}, "/home/app", false},
		"7":                    {7, 8, []uint32{8, 9, 10}, "/home/app", false},
		"007":                  {7, 8, []uint32{8, 9, 10}, "/home/app", false},
		"app:extra":            {7, 9, []uint32{9}, "/home/app", false},
		"app:77":               {7, 77, []uint32{77}, "/home/app", false},
		"55":                   {55, 0, []uint32{0}, "/", false},
		"55:66":                {55, 66, []uint32{66}, "/", false},
		":app":                 {0, 8, []uint32{8}, "/root", false},
		"1000":                 {1000, 0, []uint32{0}, "/", false}, // CVE-2016-3697: digits are no name
		"1:2000":               {1, 2000, []uint32{2000}, "/", false},
		"max":                  {4294967294, 4294967294, []uint32{4294967294}, "/max", false},
		"4294967294":           {4294967294, 4294967294, []uint32{4294967294}, "/max", false},
		"nohome":               {11, 11, []uint32{11}, "/", false},
		"ctl":                  {12, 12, []uint32{12}, "/", false},
		"twice":                {20, 20, []uint32{20}, "/one", false},
		"4294967295":           {fails: true}, // CVE-2024-40635
		"4294967296":           {fails: true},
		"99999999999999999999": {fails: true},
		"0:4294967295":         {fails: true},
		"big":                  {fails: true},
		"short":                {fails: true},
		"0:huge":               {fails: true},
		"app:":                 {fails: true},
		"-1":                   {fails: true},
		"+7":                   {fails: true},
		" 7":                   {fails: true},
		"7 ":                   {fails: true},
		"0x7":                  {fails: true},
		"none":                 {fails: true},
		"app:none":             {fails: true},
		"# comment":            {fails: true},
		"a:b:c":                {fails: true},
	} {
		a, err := resolveUser(s, r)
		if want.fails {
			if err == nil {
				t.Errorf("%q: %+v, want an error", s, a)
			}
			continue
		}
		if err != nil || a.user.UID != want.uid || a.user.GID != want.gid || !slices.Equal(a.user.AdditionalGids, want.extra) || a.home != want.home {
			t.Errorf("%q: %+v, %v, want %+v", s, a, err, want)
		}
	}
	if _, err := resolveUser("app", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("name without a root file system: %v, want fs.ErrNotExist", err)
	}
	if a, err := resolveUser("5:6", nil); err != nil || a.user.UID != 5 || a.user.GID != 6 {
		t.Errorf("numbers without a root file system: %+v, %v", a, err)
	}
}

// Account files are the image's: whatever they are, nothing outside is read and nobody waits.
func TestHostileAccountFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"FIFO":      func(p string) error { return unix.Mkfifo(p, 0o644) },
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"device":    func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) },
		"huge":      func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", MaxAccountBytes+1)), 0o644) },
		"long":      func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("\n", maxAccountLines+1)), 0o644) },
		"circle":    func(p string) error { return os.Symlink("passwd", p) },
	} {
		r := accountRoot(t, passwd, groups)
		p := filepath.Join(r.Name(), PasswdFile)
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
		if err := make(p); errors.Is(err, fs.ErrPermission) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if a, err := resolveUser("app", r); err == nil {
			t.Errorf("%s: %+v, want an error", name, a)
		}
	}
	r := accountRoot(t, passwd, groups)
	p := filepath.Join(r.Name(), PasswdFile)
	if err := errors.Join(os.Remove(p), os.Symlink("/../../../../../../../../etc/passwd", p)); err != nil {
		t.Fatal(err)
	}
	if a, err := resolveUser("root", r); err == nil { // in the root, the link leads to itself
		t.Errorf("host's passwd was read: %+v", a)
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app:extra", passwd, groups)
	f.Add("0", "::::::", ":::")
	f.Fuzz(func(t *testing.T, user, passwd, groups string) {
		a, err := resolveUser(user, accountRoot(t, passwd, groups))
		if err != nil {
			return
		}
		for _, id := range append([]uint32{a.user.UID, a.user.GID}, a.user.AdditionalGids...) {
			if id > maxID {
				t.Errorf("%q: id %d", user, id)
			}
		}
		if !slices.Contains(a.user.AdditionalGids, a.user.GID) {
			t.Errorf("%q: primary group %d not in %v", user, a.user.GID, a.user.AdditionalGids)
		}
		if user != "" && strings.Trim(user, "0123456789") == "" && strings.TrimLeft(user, "0") != "" && a.user.UID == 0 {
			t.Errorf("%q became root", user)
		}
	})
}

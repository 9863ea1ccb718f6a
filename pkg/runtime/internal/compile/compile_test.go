// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/spec"
)

// facts are those of a host with cgroup v2 on which nothing varies.
func facts(s *specs.Spec, name string) *Facts {
	f := &Facts{ID: "c", Rootfs: "/bundle/rootfs", Report: 3, FDs: 8, FirstFD: 3, Start: 4, Console: -1, CgroupFD: 5,
		Cgroups: []CgroupDir{{"", "/sys/fs/cgroup/c"}}, CgroupTop: "/sys/fs/cgroup", LastCap: 40}
	f.Mounts = make([]MountFact, len(s.Mounts))
	for i := range f.Mounts {
		f.Mounts[i] = MountFact{File: strings.HasSuffix(s.Mounts[i].Source, ".conf"), Tree: -1}
	}
	if s.Process.Terminal {
		f.Console = 6
	}
	switch name {
	case "userns":
		f.UserNS = true
	case "overlay":
		f.Overlay = &Overlay{Lower: []string{"/snapshots/b", "/snapshots/a"}, Upper: "/bundle/upper", Work: "/bundle/work", Options: []string{"xino=off", "userxattr"}}
	case "overlay-old":
		f.OldOverlay = true
		f.Overlay = &Overlay{Lower: []string{`/odd:,\names`, "/snapshots/a"}, Upper: "/bundle/up,per", Work: "/bundle/work", Options: []string{"userxattr"}}
	case "joined":
		f.Joins = []Join{{specs.NetworkNamespace, "/run/netns/x", 7}}
		f.CgroupFD, f.CgroupWait = -1, true
		f.Cgroups = []CgroupDir{{"memory", "/sys/fs/cgroup/memory/c"}, {"cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c"}, {"", "/sys/fs/cgroup/unified/c"}}
	case "hooks":
		f.Hooks = Hooks{true, true, true}
		f.Seccomp, f.SeccompNotify, f.SeccompFlags = make([]byte, 16), true, 8
	}
	return f
}

// TestGolden compares the programs of testdata/*/config.json with testdata/*/plan; UPDATE=1 rewrites those.
func TestGolden(t *testing.T) {
	dirs, _ := filepath.Glob("testdata/*")
	if len(dirs) == 0 {
		t.Fatal("no cases")
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := spec.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Init(s, facts(s, filepath.Base(dir)))
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := r.Program.Print(&b); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "plan")
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(b.String(), "\n")
			for i, line := range strings.Split(string(want), "\n") {
				if i >= len(got) || got[i] != line {
					t.Fatalf("line %d: got %q, want %q", i+1, got[min(i, len(got)-1)], line)
				}
			}
			if len(got) > strings.Count(string(want), "\n")+1 {
				t.Errorf("got %d lines more than the plan has", len(got)-strings.Count(string(want), "\n")-1)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for list, want := range map[string]options{
		"ro,rw":               {clear: 1},
		"rw,ro":               {set: 1, super: []string{"ro"}},
		"noatime,strictatime": {set: 0x20, clear: 0x70},
		"rbind,rro,rslave":    {bind: true, rbind: true, recSet: 1, propagation: []string{"rslave"}},
		"size=1k,huge=always": {data: []string{"size=1k", "huge=always"}},
		"ridmap,tmpcopyup":    {idmap: true, ridmap: true, copyUp: true},
	} {
		got := parseOptions(strings.Split(list, ","))
		if strings.Join(got.data, ",") != strings.Join(want.data, ",") || strings.Join(got.propagation, ",") != strings.Join(want.propagation, ",") ||
			strings.Join(got.super, ",") != strings.Join(want.super, ",") || got.set != want.set || got.clear != want.clear || got.recSet != want.recSet ||
			got.recClear != want.recClear || got.bind != want.bind || got.rbind != want.rbind || got.idmap != want.idmap || got.ridmap != want.ridmap || got.copyUp != want.copyUp {
			t.Errorf("%s: got %+v, want %+v", list, got, want)
		}
	}
}

func TestCPUMask(t *testing.T) {
	if m, err := CPUMask("0-2, 9,64"); err != nil || len(m) != 16 || m[0] != 7 || m[1] != 2 || m[8] != 1 {
		t.Errorf("got %v %v", m, err)
	}
	for _, bad := range []string{"3-1", "x", "1-", "99999", "-1"} {
		if _, err := CPUMask(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestVectors(t *testing.T) {
	good, _ := filepath.Glob("../../spec/testdata/state/good/*.json")
	bad, _ := filepath.Glob("../../spec/testdata/state/bad/*.json")
	if len(good) == 0 || len(bad) == 0 {
		t.Fatal("no vectors")
	}
	for _, path := range good {
		if _, err := Parse(read(t, path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	reasons := map[string]string{
		"id-with-slash": "id:", "id-empty": "id:", "pid-one": "pid: found 1", "pid-negative": "pid: found -1", "pid-string": `pid: found "12"`,
		"start-time-zero": "startTime:", "bundle-relative": "bundle:", "rootfs-not-clean": "rootfs:", "created-no-time": "created:",
		"cgroup-top": "cgroups[0].dir", "cgroup-hierarchy-top": "cgroups[0].dir", "cgroup-relative": "cgroups[0].dir", "cgroup-climbs": "cgroups[0].dir",
		"controller-twice": "cgroups[1].controller", "key-twice": "second time", "truncated": "without end", "empty": "the end",
	}
	for _, path := range bad {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		want, ok := reasons[name]
		if _, err := Parse(read(t, path)); !ok || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a refusal that names %q", name, err, want)
		}
	}
}

// The examples of the specification and the manual are states.
func TestExamples(t *testing.T) {
	for path, pattern := range map[string]string{
		"../../spec/state.md":   "(?s)```json title=\"state\"\n(.*?)```",
		"../../man/ctr-state.5": `(?s)\.Bd -literal -offset indent\n(.*?)\.Ed`,
	} {
		found := regexp.MustCompile(pattern).FindAllSubmatch(read(t, path), -1)
		if len(found) == 0 {
			t.Errorf("%s: no example", path)
		}
		for _, m := range found {
			if _, err := Parse(m[1]); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWriteRead(t *testing.T) {
	root := filepath.Join(t.TempDir(), "containers")
	if _, err := Read(root, "a"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "container does not exist") {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	if _, err := MakeDir(root, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := MakeDir(root, "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	if _, err := Read(root, "a"); !errors.Is(err, ErrCreating) {
		t.Errorf("got %v, want ErrCreating", err)
	}
	ticks, _, err := StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := &State{ID: "a", Pid: os.Getpid(), StartTime: ticks, Bundle: "/b", Rootfs: "/b/\"r\n", Created: time.Unix(1, 2).UTC(), Owner: 3, Hooks: true,
		SharedPids: true, Cgroups: []Cgroup{{"", "/sys/fs/cgroup/a"}, {"memory", "/x/y"}}, Annotations: map[string]string{"k": "v", "": "ä"}}
	if err := want.Write(root); err != nil {
		t.Fatal(err)
	}
	got, err := Read(root, "a")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %v, want %+v", got, err, want)
	}
	if !got.Alive() {
		t.Error("this process is not alive")
	}
	got.StartTime++
	if got.Alive() {
		t.Error("another process with the same number counts as the container's")
	}
	if ids, err := List(root); err != nil || !reflect.DeepEqual(ids, []string{"a"}) {
		t.Errorf("list: %q %v", ids, err)
	}
	// another container's state, moved here
	if err := os.Rename(Dir(root, "a"), Dir(root, "b")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(root, "b"); err == nil || !strings.Contains(err.Error(), `id: found "a", want "b"`) {
		t.Errorf("got %v, want a refusal", err)
	}
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(root, "b"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want fs.ErrPermission", err)
	}
}

func FuzzParse(f *testing.F) {
	all, _ := filepath.Glob("../../spec/testdata/state/*/*.json")
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(s.encode())
		if err != nil || again.ID != s.ID || again.Pid != s.Pid {
			t.Errorf("%q: written and read again: %v", data, err)
		}
	})
}

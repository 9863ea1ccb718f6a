// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/fault"
)

func TestParse(t *testing.T) {
	for _, x := range []struct {
		parse func(string) (Mount, error)
		in    string
		want  Mount
	}{
		{ParseShort, "data:/d", Mount{Type: "volume", Source: "data", Destination: "/d"}},
		{ParseShort, "/d", Mount{Type: "volume", Destination: "/d"}},
		{ParseShort, "data:/d:ro,nocopy", Mount{Type: "volume", Source: "data", Destination: "/d", Options: []string{"ro"}, NoCopy: true}},
		{ParseShort, "/a:/d:rro,rslave,z", Mount{Type: "bind", Source: "/a", Destination: "/d", Options: []string{"rro", "rslave"}}},
		{ParseShort, "/a:/d/../e:ro,rw", Mount{Type: "bind", Source: "/a", Destination: "/e", Options: []string{"rw"}}},
		{ParseShort, "data:/d:subpath=a/b", Mount{Type: "volume", Source: "data", Destination: "/d", Subpath: "a/b"}},
		{ParseShort, "/a:/d:create", Mount{Type: "bind", Source: "/a", Destination: "/d", Create: true}},
		{ParseTmpfs, "/t", Mount{Type: "tmpfs", Destination: "/t"}},
		{ParseTmpfs, "/t:rw,size=64m,mode=1770,noexec", Mount{Type: "tmpfs", Destination: "/t", Options: []string{"rw", "size=64m", "mode=1770", "noexec"}}},
		{ParseTmpfs, "/t:size=50%", Mount{Type: "tmpfs", Destination: "/t", Options: []string{"size=50%"}}},
		{ParseLong, "type=bind,src=/a:b,dst=/d,readonly", Mount{Type: "bind", Source: "/a:b", Destination: "/d", Options: []string{"ro"}}},
		{ParseLong, `type=bind,"src=/a,b",dst=/d,readonly=false`, Mount{Type: "bind", Source: "/a,b", Destination: "/d", Options: []string{"rw"}}},
		{ParseLong, "source=data,target=/d,volume-nocopy,volume-subpath=x", Mount{Type: "volume", Source: "data", Destination: "/d", NoCopy: true, Subpath: "x"}},
		{ParseLong, "type=bind,src=/a,dst=/d,bind-propagation=rshared,bind-recursive=readonly", Mount{Type: "bind", Source: "/a", Destination: "/d", Options: []string{"rshared", "rro"}}},
		{ParseLong, "dst=/d,type=tmpfs,tmpfs-size=1000,tmpfs-mode=700", Mount{Type: "tmpfs", Destination: "/d", Options: []string{"size=1000", "mode=700"}}},
	} {
		got, err := x.parse(x.in)
		if err != nil || !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: got %+v %v, want %+v", x.in, got, err, x.want)
		}
	}
	for in, parse := range map[string]func(string) (Mount, error){
		"": ParseShort, "data:d": ParseShort, "data:/": ParseShort, ":/d": ParseShort, "data:/d:what": ParseShort, "..:": ParseShort,
		"-x:/d": ParseShort, "data:/d:size=1": ParseShort, "a:/d:create": ParseShort, "/a:/d:nocopy": ParseShort, "/a:/d:subpath=x": ParseShort,
		"t": ParseTmpfs, "/t:size=x": ParseTmpfs, "/t:mode=9": ParseTmpfs, "/t:nocopy": ParseTmpfs, "/t:size=": ParseTmpfs, "/t:size=1kk": ParseTmpfs,
		"type=npipe,dst=/d": ParseLong, "type=bind,dst=/d": ParseLong, "dst": ParseLong, `type=bind,"src=/a`: ParseLong,
		"type=bind,src=/a,dst=/d,bind-propagation=up": ParseLong, "type=tmpfs,src=a,dst=/d": ParseLong, "type=bind,src=/a,dst=/d,frob=1": ParseLong,
	} {
		if got, err := parse(in); err == nil || !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: got %+v %v, want a usage error", in, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("data:/d:ro")
	f.Add(`type=bind,"src=/a,b",dst=/d,readonly=false`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (Mount, error){ParseShort, ParseLong, ParseTmpfs} {
			m, err := parse(s)
			if err != nil || m.Source == "" && m.Type == TypeVolume {
				continue
			}
			m.runtimeOptions()
			if err := (&Record{Version: Version, Mounts: []Mount{m}}).check(); err != nil {
				t.Errorf("%q gives a mount that its own contract refuses: %v", s, err)
			}
		}
	})
}

// testBundle is a bundle with two layers, or with none.
func testBundle(t *testing.T, layers bool) *bundle.Bundle {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "b")
	spec := &specs.Spec{Version: "1.2.0", Root: &specs.Root{Path: "rootfs"}, Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}}
	if layers {
		o, _ := json.Marshal(bundle.Overlay{Lower: []string{"top", "base"}, Upper: "upper", Work: "work"})
		spec.Annotations = map[string]string{bundle.AnnotationOverlay: string(o)}
	}
	b, err := bundle.Create(dir, spec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sh(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

func short(t *testing.T, words ...string) (all []Mount) {
	t.Helper()
	for _, w := range words {
		m, err := ParseShort(w)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// TestFill copies what two layers and a whiteout make of a directory, and nothing from outside of them.
func TestFill(t *testing.T) {
	clitest.Root(t)
	s := NewStore(t.TempDir())
	b := testBundle(t, true)
	secret := filepath.Join(t.TempDir(), "secret")
	sh(t, b.Dir(), `umask 022
		mkdir -p base/data/sub top/data base/etc top/empty
		echo a >base/data/a; ln base/data/a base/data/sub/hard; chmod 4711 base/data/a
		echo old >base/data/b; echo new >top/data/b; echo x >base/data/gone; mknod top/data/gone c 0 0
		mkfifo top/data/fifo; mknod top/data/null c 1 3; ln -s /etc/passwd top/data/link
		chown -h 5:6 top/data/link top/data; chmod 2750 top/data; touch -d 2001-02-03 base/data/sub
		mkdir `+secret+`; echo leak >`+secret+`/leak
		ln -s `+secret+` top/evil; ln -s ../../../../../../`+secret+` top/climb; ln -s /data top/inside; echo file >top/file`)
	// The destination twice is a usage error; the rest is done in one call.
	if err := s.Attach(t.Context(), b, short(t, "x:/data", "y:/data"), AttachOptions{}); !errors.Is(err, fault.ErrUsage) {
		t.Errorf("one destination twice: %v", err)
	}
	err := s.Attach(t.Context(), b, short(t, "data:/data:ro", "evil:/evil", "climb:/climb", "inside:/inside", "file:/file",
		"missing:/missing/dir", "data:/again/data", "/etc:/host", "none:/none:nocopy", "part:/part:subpath=a/b", "/anonymous"), AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := sh(t, s.Data("data"), `find . -mindepth 0 -printf '%P %y %m %U:%G %n %l\n' | sort; cat a b; date -r sub +%F`)
	want := ` d 2750 5:6 3 
a f 4711 0:0 2 
b f 644 0:0 1 
fifo p 644 0:0 1 
link l 777 5:6 1 /etc/passwd
sub d 755 0:0 2 
sub/hard f 4711 0:0 2 
a
new
2001-02-03
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := sh(t, s.Data("inside"), "ls"); !strings.Contains(got, "sub") {
		t.Errorf("a link inside the image is not followed: %s", got)
	}
	for _, name := range []string{"evil", "climb", "file", "missing", "none"} {
		if got := sh(t, s.Data(name), "ls -A"); got != "" {
			t.Errorf("%s: filled with %q", name, got)
		}
	}
	if mounts := sh(t, "/", "cat /proc/self/mounts"); strings.Contains(mounts, s.dir) {
		t.Errorf("left mounted: %s", mounts)
	}
	spec, err := b.Config()
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	byDst := map[string]specs.Mount{}
	for _, m := range spec.Mounts {
		order = append(order, m.Destination)
		byDst[m.Destination] = m
	}
	if strings.Join(order, " ") != "/proc /data /evil /climb /inside /file /host /none /part /anonymous /missing/dir /again/data" {
		t.Errorf("order of mounts: %v", order)
	}
	if m := byDst["/data"]; m.Type != "bind" || m.Source != s.Data("data") || strings.Join(m.Options, ",") != "rbind,rprivate,ro" {
		t.Errorf("mount of a volume: %v", m)
	}
	if m := byDst["/part"]; m.Source != s.Data("part")+"/a/b" {
		t.Errorf("mount of a subpath: %v", m)
	}

	// Once filled, never again, not even when it is empty.
	sh(t, s.Data("data"), "rm -rf ./* && echo mine >mine")
	if err := s.Attach(t.Context(), b, short(t, "data:/data"), AttachOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, s.Data("data"), "ls"); got != "mine\n" {
		t.Errorf("filled again: %s", got)
	}
	if users, err := s.Users("data"); err != nil || len(users) != 1 || users[0] != b.Dir() {
		t.Errorf("users %v %v", users, err)
	}
	if err := s.Remove(t.Context(), "data"); !errors.Is(err, fault.ErrBusy) || !strings.Contains(err.Error(), b.Dir()) {
		t.Errorf("remove in use: %v", err)
	}
	if err := s.Detach(t.Context(), b, "/data"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "data"); !errors.Is(err, fault.ErrBusy) {
		t.Errorf("remove in use by another mount: %v", err)
	}
	if err := errors.Join(s.Detach(t.Context(), b), s.Detach(t.Context(), b)); err != nil {
		t.Fatal(err)
	}
	if spec, _ := b.Config(); len(spec.Mounts) != 1 {
		t.Errorf("after detach: %v", spec.Mounts)
	}
	if removed, err := s.Prune(t.Context(), false); err != nil || len(removed) != 1 || len(removed[0]) != 32 {
		t.Errorf("prune: %v %v", removed, err)
	}
	if removed, err := s.Prune(t.Context(), true); err != nil || len(removed) != 8 {
		t.Errorf("prune all: %v %v", removed, err)
	}
	if left, _ := os.ReadDir(s.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestPlain fills from a root filesystem that is plain files.
func TestPlain(t *testing.T) {
	clitest.Root(t)
	s := NewStore(t.TempDir())
	b := testBundle(t, false)
	sh(t, b.Dir(), "mkdir -p rootfs/d && echo x >rootfs/d/x")
	if err := s.Attach(t.Context(), b, short(t, "v:/d"), AttachOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, s.Data("v"), "cat x"); got != "x\n" {
		t.Errorf("got %q", got)
	}
}

// TestSubpath refuses to leave the volume, and resolves links of the volume inside it.
func TestSubpath(t *testing.T) {
	s := NewStore(t.TempDir())
	if _, err := s.Create("v", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	sh(t, s.Data("v"), "mkdir -p a/b etc; ln -s /etc out; ln -s ../../../.. up; ln -s /a/b in; ln -s /nowhere dangling; echo x >file")
	for sub, want := range map[string]string{"a/b": "/a/b", "in": "/a/b", "out": "/etc", "up": "", "../../etc": "/etc", "new/dir": "/new/dir"} {
		got, err := s.subpath("v", sub)
		if err != nil || got != s.Data("v")+want {
			t.Errorf("%s: got %s %v, want %s in the volume", sub, got, err, want)
		}
	}
	for _, sub := range []string{"file", "dangling"} {
		if got, err := s.subpath("v", sub); err == nil {
			t.Errorf("%s: got %s, want an error", sub, got)
		}
	}
}

func TestBind(t *testing.T) {
	s := NewStore(t.TempDir())
	b := testBundle(t, false)
	dir := filepath.Join(t.TempDir(), "a", "b")
	err := s.Attach(t.Context(), b, short(t, dir+":/x"), AttachOptions{})
	if !errors.Is(err, fs.ErrNotExist) || len(fault.Hints(err)) == 0 {
		t.Errorf("a missing source: %v", err)
	}
	if spec, _ := b.Config(); len(spec.Mounts) != 1 {
		t.Errorf("config.json changed: %v", spec.Mounts)
	}
	if os.Geteuid() == 0 {
		t.Setenv("SUDO_UID", "1234")
		t.Setenv("SUDO_GID", "1235")
	}
	if err := s.Attach(t.Context(), b, short(t, dir+":/x"), AttachOptions{CreateHostPath: true}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(dir), &st); err != nil || os.Geteuid() == 0 && (st.Uid != 1234 || st.Gid != 1235) {
		t.Errorf("made for %d:%d, want the caller's: %v", st.Uid, st.Gid, err)
	}
}

// TestTogether creates, attaches and removes the same volumes from many sides.
func TestTogether(t *testing.T) {
	clitest.Root(t)
	s := NewStore(t.TempDir())
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 8 {
		b := testBundle(t, false)
		sh(t, b.Dir(), "mkdir -p rootfs/d; for i in 1 2 3 4 5 6 7 8 9; do echo $i >rootfs/d/$i; done")
		wg.Go(func() {
			words := []string{"one:/d", "two:/e"}
			if i%2 == 0 {
				words = []string{"two:/e", "one:/d"}
			}
			for range 10 {
				if err := s.Attach(t.Context(), b, short(t, words...), AttachOptions{}); err != nil {
					errs <- err
					return
				}
				if got, err := os.ReadDir(s.Data("one")); len(got) != 9 {
					errs <- fmt.Errorf("%d files in an attached volume: %v", len(got), err)
				}
				if err := s.Detach(t.Context(), b); err != nil {
					errs <- err
				}
				if err := s.Remove(t.Context(), "one"); err != nil && !errors.Is(err, fault.ErrBusy) && !errors.Is(err, fs.ErrNotExist) {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func TestVectors(t *testing.T) {
	parse := func(name string, data []byte) error {
		if strings.HasSuffix(name, "volumes.json") {
			_, err := ParseRecord(data)
			return err
		}
		_, err := ParseVolume(data)
		return err
	}
	files, _ := filepath.Glob("../../spec/testdata/volume/*/*")
	if len(files) < 10 {
		t.Fatalf("%d vectors", len(files))
	}
	for _, p := range files {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		err = parse(p, data)
		if filepath.Base(filepath.Dir(p)) == "good" {
			if err != nil {
				t.Errorf("%s: %v", p, err)
			}
			continue
		}
		reason, _, _ := strings.Cut(filepath.Base(p), ".volume")
		pattern := strings.ReplaceAll(reason, "-", ".*")
		if err == nil || !regexp.MustCompile(pattern).MatchString(err.Error()) {
			t.Errorf("%s: refused with %v, want %q", p, err, reason)
		}
	}
	page, err := os.ReadFile("../../spec/volume.md")
	if err != nil {
		t.Fatal(err)
	}
	fences := regexp.MustCompile("(?s)```json title=\"(.*?)\"\n(.*?)```").FindAllSubmatch(page, -1)
	if len(fences) < 2 {
		t.Fatalf("%d examples in spec/volume.md", len(fences))
	}
	for _, f := range fences {
		if err := parse(string(f[1]), f[2]); err != nil {
			t.Errorf("example %s: %v", f[1], err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// The test binary is also the second process of TestUpdateInTwoProcesses and the victim of TestUpdateKilled.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "annotate" {
		b, err := Open(os.Args[2])
		for i := 0; err == nil && (i < updates || os.Args[3] == "endless"); i++ {
			err = annotate(b, fmt.Sprintf("%s.%d", os.Args[3], i%updates))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const updates = 100

func annotate(b *Bundle, key string) error {
	return b.Update(func(s *specs.Spec) error {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[key] += "x"
		return nil
	})
}

func newBundle(t *testing.T, config string) *Bundle {
	t.Helper()
	b, err := Create(filepath.Join(t.TempDir(), "b"), &specs.Spec{Version: "1.3.0"})
	if err != nil {
		t.Fatal(err)
	}
	if config != "" {
		if err := os.WriteFile(b.Path(ConfigFile), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// Two processes change one config.json at the same time: no change is lost (spec/bundle.md, Locking).
func TestUpdateInTwoProcesses(t *testing.T) {
	b := newBundle(t, "")
	cmd := exec.Command(os.Args[0], "annotate", b.Dir(), "other")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range updates {
		if err := annotate(b, fmt.Sprintf("own.%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	spec, err := b.Config()
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Annotations) != 2*updates {
		t.Errorf("%d annotations, want %d", len(spec.Annotations), 2*updates)
	}
	noTemps(t, b)
}

// A writer killed at any moment leaves a whole config.json, no lock, and at most temporary files that Clean removes.
func TestUpdateKilled(t *testing.T) {
	b := newBundle(t, "")
	for range 30 {
		cmd := exec.Command(os.Args[0], "annotate", b.Dir(), "endless")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Intn(12_000)) * time.Microsecond)
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		if err := annotate(b, "own"); err != nil {
			t.Fatal(err)
		}
	}
	spec, err := b.Config()
	if err != nil || len(spec.Annotations["own"]) != 30 {
		t.Errorf("%v %v, want 30 changes", spec.Annotations["own"], err)
	}
	if _, err := atomicfile.Clean(b.Dir()); err != nil {
		t.Fatal(err)
	}
	noTemps(t, b)
}

func noTemps(t *testing.T, b *Bundle) {
	t.Helper()
	entries, err := os.ReadDir(b.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ConfigFile {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestUpdateKeepsUnknownFields(t *testing.T) {
	b := newBundle(t, `{
  "ociVersion": "1.3.0",
  "x-new": {"a": [1, 2.50, 12345678901234567890]},
  "process": {"args": ["true"], "cwd": "/", "future": "<&>", "user": {"uid": 0, "gid": 0, "shell": "sh"}},
  "mounts": [{"destination": "/proc", "type": "proc", "x-flag": true}, {"destination": "/old"}],
  "linux": {"resources": {"x-io": 7}}
}`)
	err := b.Update(func(s *specs.Spec) error {
		s.Process.Cwd = "/tmp"
		s.Process.Args = append(s.Process.Args, "-v")
		s.Mounts = append(s.Mounts[:1], specs.Mount{Destination: "/data"})
		s.Hostname = "h"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(b.Path(ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`12345678901234567890`, `2.50`, `"future": "<&>"`, `"shell": "sh"`, `"x-flag": true`, `"x-io": 7`, `"cwd": "/tmp"`, `"-v"`, `"/data"`, `"hostname": "h"`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is missing in\n%s", want, data)
		}
	}
	if strings.Contains(string(data), "/old") {
		t.Error("a mount that was removed is still there")
	}
	// Nothing changed: not one byte does.
	if err := b.Update(func(*specs.Spec) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(b.Path(ConfigFile)); string(again) != string(data) {
		t.Error("an update without change rewrote the file")
	}
	boom := errors.New("boom")
	if err := b.Update(func(s *specs.Spec) error { s.Hostname = "other"; return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	if again, _ := os.ReadFile(b.Path(ConfigFile)); string(again) != string(data) {
		t.Error("an update that failed changed the file")
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for config, want := range map[string]string{
		"{\n \"process\": {\n  \"args\": \"sh\"\n }}":     "line 3: process.args: found a string, want an array",
		"{\n \"process\": {\n  \"user\": {\"uid\": -1}}}": "line 3: process.user.uid: found a number -1, want an integer (uint32)",
		"{\n \"linux\": 5}":                               "line 2: linux: found a number, want an object",
		"{\n \"root\": {\n \"path\": \"r\",\n }\n}":       "line 4: invalid character '}'",
		"{\"ociVersion\": \"1.3.0\"} trailing":            "line 1: invalid character 't' after top-level value",
		"":                                                "line 1: unexpected end of JSON input",
	} {
		b := newBundle(t, "{}")
		if err := os.WriteFile(b.Path(ConfigFile), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := b.Config()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), b.Path(ConfigFile)) {
			t.Errorf("%q: got %v, want …%s…", config, err, want)
		}
		if err := b.Update(func(*specs.Spec) error { return nil }); err == nil {
			t.Errorf("%q: Update took it", config)
		}
	}
}

func TestOpenAndCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) || len(fault.Hints(err)) != 1 {
		t.Errorf("%v", err)
	}
	b, err := Create(dir, &specs.Spec{Version: "1.3.0"})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v %v, want 0700", st.Mode(), err)
	}
	if _, err := Create(dir, &specs.Spec{}); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	// A document that is no regular file, or has no end, is refused and not waited for.
	os.Remove(b.Path(ConfigFile))
	if err := syscall.Mkfifo(b.Path(ConfigFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Config(); err == nil {
		t.Error("a FIFO was read")
	}
	if err := b.Update(func(*specs.Spec) error { return nil }); err == nil {
		t.Error("a FIFO was updated")
	}
	os.Remove(b.Path(ConfigFile))
	f, err := os.Create(b.Path(ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	f.Truncate(MaxConfigBytes + 1)
	f.Close()
	if _, err := b.Config(); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
}

func TestMergePatch(t *testing.T) {
	// The cases of RFC 7396, appendix A.
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		got, err := MergePatch([]byte(c[0]), []byte(c[1]))
		if err != nil {
			t.Errorf("%s + %s: %v", c[0], c[1], err)
			continue
		}
		var v any
		json.Unmarshal(got, &v)
		if flat, _ := json.Marshal(v); string(flat) != c[2] {
			t.Errorf("%s + %s: %s, want %s", c[0], c[1], flat, c[2])
		}
	}
	if _, err := MergePatch([]byte("{}"), []byte("{\n\n,}")); err == nil || !strings.Contains(err.Error(), "patch: line 3") {
		t.Error(err)
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.3.0","mounts":[{"destination":"/","x":1}],"x":{"y":[{}]}}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		b := &Bundle{t.TempDir()}
		os.WriteFile(b.Path(ConfigFile), config, 0o600)
		if _, err := b.Config(); err != nil {
			return
		}
		if err := b.Update(func(s *specs.Spec) error { s.Hostname += "h"; return nil }); err != nil {
			t.Fatal(err)
		}
		if s, err := b.Config(); err != nil || !strings.HasSuffix(s.Hostname, "h") {
			t.Fatalf("%v %v", s, err)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package project

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Vectors are annotations of a bundle in the directory of project "p" (spec/project.md). A bad one is refused
// for the annotation that its name starts with.
func TestVectors(t *testing.T) {
	for _, kind := range []string{"good", "bad"} {
		files, err := filepath.Glob("../../spec/testdata/project/" + kind + "/*.json")
		if err != nil || len(files) == 0 {
			t.Fatal("no vectors", err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var a map[string]string
			if err := json.Unmarshal(data, &a); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			c, err := Parse("p", a)
			if kind == "good" {
				if err != nil {
					t.Errorf("%s: %v", file, err)
					continue
				}
				again, err := Parse("p", c.Annotations())
				if err != nil || !reflect.DeepEqual(again, c) {
					t.Errorf("%s: %+v became %+v, %v", file, c, again, err)
				}
				continue
			}
			reason := regexp.MustCompile(`^(project|service|container-number|oneoff|publish)-`).FindStringSubmatch(filepath.Base(file))
			if reason == nil || err == nil || !strings.Contains(err.Error(), reason[1]) {
				t.Errorf("%s: got error %v, want one about what its name says", file, err)
			}
		}
	}
}

// The example in the specification is valid.
func TestSpecExample(t *testing.T) {
	text, err := os.ReadFile("../../spec/project.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```json title=\"annotations\"\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("no example")
	}
	for _, b := range blocks {
		var a map[string]string
		if err := json.Unmarshal(b[1], &a); err != nil {
			t.Fatal(err)
		}
		c, err := Parse("guestbook", a)
		if err != nil || c.Service != "web" || len(c.Publish) != 1 {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "my-app_2": true, "0": true, "": false, "-a": false, "_a": false, "A": false,
		"..": false, "a/b": false, "a.b": false, "a\n": false, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q): %v", name, err)
		}
	}
	for id, ok := range map[string]bool{"a": true, "Web.1_x-2": true, "": false, ".": false, "..": false, "-a": false, "a/b": false, "a b": false, "é": false} {
		if err := CheckID(id); (err == nil) != ok {
			t.Errorf("CheckID(%q): %v", id, err)
		}
	}
}

// Holders that remove the directory at their end exclude each other all the same.
func TestLock(t *testing.T) {
	root := t.TempDir()
	var inside, total atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				l, err := Lock(root, "p")
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two holders at once")
				}
				total.Add(1)
				inside.Add(-1)
				RemoveEmpty(root, "p")
				l.Unlock()
			}
		})
	}
	wg.Wait()
	if got := total.Load(); got != 400 {
		t.Errorf("got %d turns, want 400", got)
	}
	if _, err := Lock(root, "../p"); err == nil {
		t.Error("a name that leads elsewhere was taken")
	}
}

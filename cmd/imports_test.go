// SPDX-License-Identifier: Apache-2.0

// Package cmd_test holds the structure of the tree: who may import whom, what each binary links, and that
// the manual says what the tools do.
package cmd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ctr-tools/ctr"

var tools = []string{"ctr-fetch", "ctr-build", "ctr-push", "ctr-run", "ctr-net", "ctr-vol", "ctr-compose"}

// levels is the table of DESIGN "Packages": a package imports only packages of lower levels. internal
// packages and test helpers (NAMEtest) have the level of the package they serve.
var levels = map[string]int{
	"fault": 0, "place": 0,
	"atomicfile": 1, "cli": 1, "descriptor": 1, "progress": 1, "rootfd": 1, "strictjson": 1, "toolkit": 1,
	"bundle": 2, "image": 2, "layer": 2, "layout": 2, "log": 2, "network": 2, "project": 2, "state": 2, "volume": 2,
	"registry": 3, "runtime": 3, "snapshot": 3, "supervise": 3, "transfer": 3,
	"build": 4, "compose": 4, "unpack": 4,
}

// sideways lists the imports within a level that are wanted, with the reason.
var sideways = map[string]string{
	"network -> bundle":    "network.json and the netns path are the bundle's",
	"volume -> bundle":     "volumes.json and the mounts are the bundle's",
	"transfer -> registry": "operands name registries",
	"cli -> toolkit":       "test helper: quoting and exit statuses in messages",
}

// forbidden lists what a binary must not link, with the reason.
var forbidden = map[string]map[string]string{
	"ctr-run": {
		"net/http":                        "6 MB and an attack surface in the most privileged tool",
		"gopkg.in/yaml.v3":                "no YAML in a runtime",
		"github.com/vbauerster/mpb/v8":    "nothing here takes long enough for a progress bar",
		module + "/pkg/layout":            "runtime code knows no digests",
		module + "/pkg/image":             "runtime code knows no images",
		"github.com/vishvananda/netlink":  "networks are ctr-net's",
		"github.com/opencontainers/umoci": "layers are ctr-fetch's",
	},
	"ctr-fetch": {module + "/pkg/runtime": "image code knows no namespaces"},
	"ctr-push":  {module + "/pkg/runtime": "image code knows no namespaces"},
	"ctr-build": {module + "/pkg/runtime": "RUN is one call of ctr-run"},
	"ctr-compose": {
		module + "/pkg/runtime": "a plan is command lines",
		module + "/pkg/layout":  "a plan is command lines",
	},
}

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports"}, args...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", strings.Join(args, " "), err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// owner is the first component below pkg/: the package that an internal package serves.
func owner(path string) string {
	name, ok := strings.CutPrefix(path, module+"/pkg/")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, "/")
	return name
}

func TestImportLevels(t *testing.T) {
	seen := map[string]bool{}
	used := map[string]bool{}
	for _, p := range list(t, "./pkg/...") {
		from := owner(p.ImportPath)
		seen[from] = true
		level, ok := levels[from]
		if !ok {
			t.Errorf("%s has no level in the table", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			to := owner(i)
			if to == "" || to == from {
				continue
			}
			edge := from + " -> " + to
			if _, ok := sideways[edge]; ok && levels[to] <= level {
				used[edge] = true
				continue
			}
			if levels[to] >= level {
				t.Errorf("%s imports %s: level %d imports level %d, want a lower one", p.ImportPath, i, level, levels[to])
			}
		}
	}
	for name := range levels {
		if !seen[name] {
			t.Errorf("the table names pkg/%s, which does not exist", name)
		}
	}
	for edge := range sideways {
		if !used[edge] {
			t.Errorf("the table allows %s, which nothing uses", edge)
		}
	}
	for _, p := range list(t, "./cmd/...") {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, module+"/cmd/") {
				t.Errorf("%s imports %s: tools share files, not code", p.ImportPath, i)
			}
		}
	}
}

// TestDeps compares what each binary links with the reviewed list; UPDATE=1 rewrites the lists.
func TestDeps(t *testing.T) {
	for _, tool := range tools {
		var got []string
		for _, p := range list(t, "-deps", "./cmd/"+tool) {
			if reason := forbidden[tool][p.ImportPath]; reason != "" {
				t.Errorf("%s links %s: %s", tool, p.ImportPath, reason)
			}
			if !p.Standard && p.ImportPath != module+"/cmd/"+tool {
				got = append(got, p.ImportPath)
			}
		}
		slices.Sort(got)
		want := strings.Join(got, "\n") + "\n"
		file := filepath.Join(tool, "deps.txt")
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if string(have) != want {
			t.Errorf("%s is not what %s links (%s); after a review: UPDATE=1 go test ./cmd -run TestDeps", file, tool, difference(string(have), want))
		}
	}
}

func difference(have, want string) string {
	h, w := strings.Fields(have), strings.Fields(want)
	var out []string
	for _, x := range w {
		if !slices.Contains(h, x) {
			out = append(out, "+"+x)
		}
	}
	for _, x := range h {
		if !slices.Contains(w, x) {
			out = append(out, "-"+x)
		}
	}
	if len(out) > 10 {
		out = append(out[:10], fmt.Sprintf("and %d more", len(out)-10))
	}
	return strings.Join(out, " ")
}

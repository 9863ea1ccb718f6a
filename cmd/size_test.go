// SPDX-License-Identifier: Apache-2.0

package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxSize bounds stripped binaries where the size is part of what a tool promises. An import that brings
// text/template's methods, crypto or net/http to ctr-run costs from half a megabyte to six, and time at every start.
var maxSize = map[string]int64{"ctr-run": 5e6}

func TestSize(t *testing.T) {
	for tool, limit := range maxSize {
		file := filepath.Join(t.TempDir(), tool)
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "./"+tool)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", tool, err, out)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > limit {
			t.Errorf("%s: found %d bytes, want at most %d", tool, info.Size(), limit)
		}
	}
}

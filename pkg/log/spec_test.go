// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every line of a good vector and of spec/log.md's examples is a record, and no line of a bad one is, for the reason that
// the words of its name give.
func TestSpec(t *testing.T) {
	text, err := os.ReadFile("../../spec/log.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```text title=\"log\"\n")
	example, _, _ = strings.Cut(example, "```")
	if strings.Count(example, "\n") != 4 {
		t.Fatalf("example of spec/log.md: %q", example)
	}
	check(t, "spec/log.md", []byte(example), "")
	vectors, _ := filepath.Glob("../../spec/testdata/log/*/*.log")
	if len(vectors) < 8 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, v := range vectors {
		data, err := os.ReadFile(v)
		if err != nil {
			t.Fatal(err)
		}
		reason := ""
		if filepath.Base(filepath.Dir(v)) == "bad" {
			reason = strings.TrimSuffix(filepath.Base(v), ".log")
		}
		check(t, v, data, reason)
	}
}

func check(t *testing.T, name string, data []byte, reason string) {
	t.Helper()
	for line := range bytes.Lines(data) {
		r, err := Parse(bytes.TrimSuffix(line, []byte{'\n'}))
		if reason == "" {
			if err != nil {
				t.Errorf("%s: %q: %v", name, line, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: %q is taken for %+v", name, line, r)
			continue
		}
		for word := range strings.SplitSeq(reason, "-") {
			if !strings.Contains(strings.ToLower(err.Error()), word) {
				t.Errorf("%s: %v: no word of %q", name, err, word)
			}
		}
	}
}

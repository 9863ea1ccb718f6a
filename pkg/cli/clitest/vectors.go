// SPDX-License-Identifier: Apache-2.0

package clitest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Vectors holds a contract to its specification: the examples of page (JSON fences with title="KIND") and the good
// vectors of spec/testdata/CONTRACT are taken; a bad vector KIND.REASON.json is refused with an error that has every
// word of REASON. read has a reader for each kind; a nil one says that the kind is another contract's. There have to
// be at least atLeast vectors.
func Vectors(t *testing.T, contract, page string, atLeast int, read map[string]func([]byte) error) {
	t.Helper()
	examples := regexp.MustCompile("(?s)```json title=\"(.*?)\"\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(examples) == 0 {
		t.Error("no examples")
	}
	for _, e := range examples {
		parse, known := read[e[1]]
		if !known {
			t.Errorf("example of an unknown kind %q", e[1])
		} else if parse != nil {
			if err := parse([]byte(e[2])); err != nil {
				t.Errorf("example %s: %v", e[1], err)
			}
		}
	}
	vectors, _ := filepath.Glob(filepath.Join(Source(), "spec/testdata", contract, "*/*.json"))
	if len(vectors) < atLeast {
		t.Fatalf("%d vectors, want at least %d", len(vectors), atLeast)
	}
	for _, v := range vectors {
		data, err := os.ReadFile(v)
		if err != nil {
			t.Fatal(err)
		}
		kind, reason, _ := strings.Cut(strings.TrimSuffix(filepath.Base(v), ".json"), ".")
		parse := read[kind]
		if parse == nil {
			t.Errorf("%s: unknown kind", v)
			continue
		}
		err = parse(data)
		switch {
		case filepath.Base(filepath.Dir(v)) == "good":
			if err != nil {
				t.Errorf("%s: %v", v, err)
			}
		case err == nil:
			t.Errorf("%s: not refused", v)
		default:
			for word := range strings.SplitSeq(reason, "-") {
				if !strings.Contains(strings.ToLower(err.Error()), word) {
					t.Errorf("%s: %v: no word %q", v, err, word)
				}
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents are the kinds of documents in spec/bundle.md, and who reads them.
var documents = map[string]func([]byte) error{
	"config": func(b []byte) error {
		s := new(Bundle)
		_, err := s.parse(b)
		return err
	},
	"overlay": func(b []byte) error { _, err := ParseOverlay(string(b)); return err },
	"image":   func(b []byte) error { _, err := ParseImage(b); return err },
}

// Examples of the page and good vectors are taken; a bad vector KIND.REASON.json is refused with an error that has
// every word of REASON.
func TestSpec(t *testing.T) {
	page, err := os.ReadFile("../../spec/bundle.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```json title=\"(.*?)\"\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(examples) == 0 {
		t.Error("no examples")
	}
	for _, e := range examples {
		parse := documents[e[1]]
		if e[1] == "exit" { // package supervise's
			continue
		}
		if parse == nil {
			t.Errorf("example of an unknown kind %q", e[1])
			continue
		}
		if err := parse([]byte(e[2])); err != nil {
			t.Errorf("example %s: %v", e[1], err)
		}
	}
	vectors, _ := filepath.Glob("../../spec/testdata/bundle/*/*.json")
	if len(vectors) < 20 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, v := range vectors {
		data, err := os.ReadFile(v)
		if err != nil {
			t.Fatal(err)
		}
		kind, reason, _ := strings.Cut(strings.TrimSuffix(filepath.Base(v), ".json"), ".")
		parse := documents[kind]
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

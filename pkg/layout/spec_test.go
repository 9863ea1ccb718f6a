// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/layout/layouttest"
)

const (
	vectors = "../../spec/testdata/layout"
	page    = "../../spec/layout.md"
)

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestGoodVectors(t *testing.T) {
	for _, name := range names(t, filepath.Join(vectors, "good")) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "l")
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(vectors, "good", name))); err != nil {
				t.Fatal(err)
			}
			os.Remove(filepath.Join(dir, "blobs/sha256/.keep")) // git keeps no empty directories
			l, err := layout.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			before := layouttest.Good(t, l)
			res, err := l.GC(context.Background(), layout.GCOptions{KeepPartial: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(res.Blobs) > 0 {
				t.Errorf("gc removed %v", res.Blobs)
			}
			if after := layouttest.Good(t, l); after.Blobs != before.Blobs || after.Entries != before.Entries {
				t.Errorf("after gc %+v, before %+v", after, before)
			}
		})
	}
}

// kinds are the words of "Fsck" in the page.
var kinds = []string{"oci-layout", "index", "digest", "missing", "content", "size", "media-type", "document", "name", "stray", "depth", "blobs"}

// A bad vector's name starts with the kind of what is wrong with it, and nothing else is.
func TestBadVectors(t *testing.T) {
	for _, name := range names(t, filepath.Join(vectors, "bad")) {
		t.Run(name, func(t *testing.T) {
			want := ""
			for _, k := range kinds {
				if strings.HasPrefix(name, k+"-") && len(k) > len(want) {
					want = k
				}
			}
			l, err := layout.Open(filepath.Join(vectors, "bad", name))
			if err != nil {
				if want != "oci-layout" || !strings.Contains(err.Error(), want) {
					t.Errorf("open: %v, want a problem of kind %q", err, want)
				}
				return
			}
			res, err := l.Fsck(context.Background(), layout.FsckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range res.Problems {
				got = append(got, p.Kind)
				t.Logf("%s: %s %s: %s", p.Kind, p.Name, p.Digest, p.Text)
			}
			if !slices.Contains(got, want) || len(slices.Compact(got)) != 1 {
				t.Errorf("problems of kind %q, want %q", got, want)
			}
		})
	}
}

// Every JSON example in the page is what its title says, and every kind of problem is explained.
func TestPage(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```json title=\"([^\"]+)\"\n(.*?)```").FindAllSubmatch(data, -1)
	if len(blocks) == 0 {
		t.Error("no examples")
	}
	for _, b := range blocks {
		title, example := string(b[1]), b[2]
		switch title {
		case "oci-layout":
			var v ocispec.ImageLayout
			if err := json.Unmarshal(example, &v); err != nil || v.Version != ocispec.ImageLayoutVersion {
				t.Errorf("%s: %v, %+v", title, err, v)
			}
		case "index.json", "manifest":
			mediaType := ocispec.MediaTypeImageIndex
			if title == "manifest" {
				mediaType = ocispec.MediaTypeImageManifest
			}
			doc, err := descriptor.Parse(mediaType, example)
			if err != nil {
				t.Errorf("%s: %v", title, err)
				continue
			}
			for _, c := range doc.Children() {
				if name := c.Annotations[ocispec.AnnotationRefName]; name != "" && layout.CheckName(name) != nil {
					t.Errorf("%s: name %q", title, name)
				}
			}
		case "problem":
			var p layout.Problem
			if err := json.Unmarshal(example, &p); err != nil || !slices.Contains(kinds, p.Kind) {
				t.Errorf("%s: %v, %+v", title, err, p)
			}
		default:
			t.Errorf("example %q: no test", title)
		}
	}
	for _, k := range kinds {
		if !strings.Contains(string(data), "| `"+k+"` |") {
			t.Errorf("problems of kind %q are not explained", k)
		}
	}
	for _, p := range []string{layout.AnnotationPlatforms, "partial/", "oci-layout"} {
		if !strings.Contains(string(data), "`"+p+"`") {
			t.Errorf("%s is not mentioned", p)
		}
	}
}

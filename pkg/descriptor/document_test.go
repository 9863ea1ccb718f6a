// SPDX-License-Identifier: Apache-2.0

package descriptor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
)

var some = fmt.Sprintf(`{"mediaType":"x","digest":%q,"size":1}`, digest.FromString("x"))

func TestParse(t *testing.T) {
	manifest, index := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	good := fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, some, some)
	for _, c := range []struct{ mediaType, data, err string }{
		{manifest, good, ""},
		{"", good, ""},
		{descriptor.DockerManifest, good, ""},
		{index, `{"schemaVersion":2,"manifests":[` + some + `]}`, ""},
		{descriptor.DockerManifestList, `{"schemaVersion":2,"manifests":[]}`, ""},
		{manifest, `{"schemaVersion":2,"annotations":{"Config":"a","config":"b"},` + good[1+len(`"schemaVersion":2,`):], ""},
		{index, good, "content is not of its media type"},
		{manifest, `{"schemaVersion":2,"manifests":[]}`, "content is not of its media type"},
		{manifest, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "ambiguous: manifests beside layers"},
		{manifest, `{"schemaVersion":2,"mediaType":"` + index + `","config":` + some + `}`, "its descriptor says"},
		{manifest, `{"schemaVersion":2,"config":` + some + `,"layers":[],"layers":[]}`, "twice"},
		{manifest, `{"schemaVersion":2,"config":` + some + `,"Layers":[]}`, `key "Layers"`},
		{manifest, good + "{}", "data after the document"},
		{manifest, `{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		{manifest, `{"schemaVersion":3}`, "schemaVersion 3"},
		{manifest, `{"schemaVersion":2,"config":{"digest":"sha256:../..","size":1}}`, "digest"},
		{manifest, `{"schemaVersion":2,"config":` + strings.Replace(some, `"size":1`, `"size":-1`, 1) + `}`, "size -1"},
		{manifest, `{"schemaVersion":2,"config":null}`, "digest"},
		{"text/plain", good, `media type "text/plain"`},
		{manifest, strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40), "deep"},
		{manifest, `[]`, "not a JSON object"},
		{manifest, ``, "not JSON"},
		{manifest, strings.Repeat(" ", descriptor.MaxDocumentBytes+1), "at most"},
	} {
		_, err := descriptor.Parse(c.mediaType, []byte(c.data))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !errors.Is(err, fault.ErrUnverified)) {
			t.Errorf("%s %.120s: %v, want %q", c.mediaType, c.data, err, c.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("", []byte(`{"schemaVersion":2,"config":`+some+`,"layers":[]}`))
	f.Add(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[`+some+`],"subject":`+some+`}`))
	f.Add("", []byte(`{"schemaVersion":2,"manifests":[null],"layers":1}`))
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		doc, err := descriptor.Parse(mediaType, data)
		if err != nil {
			return
		}
		if (doc.Index == nil) == (doc.Manifest == nil) {
			t.Fatalf("%q is both or neither", data)
		}
		for _, c := range doc.Children() {
			if descriptor.Check(c) != nil {
				t.Fatalf("%q: bad child %+v", data, c)
			}
		}
		if again, err := descriptor.Parse(doc.MediaType, data); err != nil || (again.Index == nil) != (doc.Index == nil) {
			t.Fatalf("%q: another reading: %v", data, err)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package descriptor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types for the same documents.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerManifestV1   = "application/vnd.docker.distribution.manifest.v1+json"
	DockerManifestV1S  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// IsIndex says whether a media type is that of an index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerManifestList
}

// IsManifest says whether a media type is that of an image manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == DockerManifest
}

// A Document is an index or a manifest: exactly one of the two is set.
type Document struct {
	MediaType string
	Index     *ocispec.Index
	Manifest  *ocispec.Manifest
}

// Children are the descriptors that the document consists of: an index's manifests, a manifest's config
// and layers.
func (d *Document) Children() []ocispec.Descriptor {
	if d.Index != nil {
		return d.Index.Manifests
	}
	return append([]ocispec.Descriptor{d.Manifest.Config}, d.Manifest.Layers...)
}

// Subject is the descriptor that the document refers to, or nil.
func (d *Document) Subject() *ocispec.Descriptor {
	if d.Index != nil {
		return d.Index.Subject
	}
	return d.Manifest.Subject
}

// Parse reads an index or a manifest. mediaType is what the descriptor, or a Content-Type, says; empty
// lets the document speak for itself. It refuses every document that two readers could take differently
// (CVE-2021-41190): layers beside manifests, a media type that is not the one announced, keys that are
// there twice or differ in case from the ones of the specification. Every digest inside has been checked.
func Parse(mediaType string, data []byte) (*Document, error) {
	if len(data) > MaxDocumentBytes {
		return nil, Mismatch("document of %d bytes, want at most %d", len(data), MaxDocumentBytes)
	}
	if err := unambiguous(data); err != nil {
		return nil, err
	}
	var shape struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &shape); err != nil {
		return nil, Mismatch("not an index or manifest: %v", err)
	}
	if shape.SchemaVersion == 1 || shape.FSLayers != nil || mediaType == DockerManifestV1 || mediaType == DockerManifestV1S {
		return nil, Mismatch("a Docker schema 1 manifest, which nothing verifies and nobody makes since 2017; want schema 2 or OCI")
	}
	if shape.SchemaVersion != 2 {
		return nil, Mismatch("schemaVersion %d, want 2", shape.SchemaVersion)
	}
	if shape.Manifests != nil && (shape.Layers != nil || shape.Config != nil) {
		return nil, Mismatch("ambiguous: manifests beside layers or config in one document")
	}
	switch {
	case mediaType == "":
		mediaType = shape.MediaType
	case shape.MediaType != "" && shape.MediaType != mediaType:
		return nil, Mismatch("media type %q, its descriptor says %q", shape.MediaType, mediaType)
	}
	if mediaType == "" { // both specifications allow a document without: its shape decides
		if mediaType = ocispec.MediaTypeImageManifest; shape.Manifests != nil {
			mediaType = ocispec.MediaTypeImageIndex
		}
	}
	doc := &Document{MediaType: mediaType}
	var err error
	switch {
	case IsIndex(mediaType) && shape.Layers == nil && shape.Config == nil:
		doc.Index = &ocispec.Index{}
		err = json.Unmarshal(data, doc.Index)
	case IsManifest(mediaType) && shape.Manifests == nil && shape.Config != nil:
		doc.Manifest = &ocispec.Manifest{}
		err = json.Unmarshal(data, doc.Manifest)
	case IsIndex(mediaType) || IsManifest(mediaType):
		return nil, Mismatch("content is not of its media type %s", mediaType)
	default:
		return nil, Mismatch("media type %q, want an index or a manifest", mediaType)
	}
	if err != nil {
		return nil, Mismatch("%s: %v", mediaType, err)
	}
	for i, c := range doc.Children() {
		if err := Check(c); err != nil {
			return nil, fmt.Errorf("descriptor %d of %s: %w", i, mediaType, err)
		}
	}
	if s := doc.Subject(); s != nil {
		if err := Check(*s); err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
	}
	return doc, nil
}

// The keys that decide what a document says, by their lower-case form.
var known = map[string]string{
	"schemaversion": "schemaVersion", "mediatype": "mediaType", "manifests": "manifests", "config": "config",
	"layers": "layers", "digest": "digest", "size": "size", "platform": "platform", "subject": "subject",
	"annotations": "annotations", "artifacttype": "artifactType", "urls": "urls", "data": "data",
	"architecture": "architecture", "os": "os", "variant": "variant",
}

// unambiguous refuses keys that are there twice, and known keys in another case, which encoding/json takes
// and others do not. Annotations are free in case.
func unambiguous(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := object(dec, false, 0); err != nil {
		return err
	}
	if rest, _ := dec.Token(); rest != nil {
		return Mismatch("data after the document")
	}
	return nil
}

const maxDepth = 32

func object(dec *json.Decoder, free bool, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return Mismatch("not JSON: %v", err)
	}
	delim, _ := t.(json.Delim)
	if depth == 0 && delim != '{' {
		return Mismatch("not a JSON object")
	}
	if depth > maxDepth {
		return Mismatch("nested more than %d deep", maxDepth)
	}
	switch delim {
	case '[':
		for dec.More() {
			if err := object(dec, free, depth+1); err != nil {
				return err
			}
		}
	case '{':
		seen := map[string]bool{}
		for dec.More() {
			t, err := dec.Token()
			if err != nil {
				return Mismatch("not JSON: %v", err)
			}
			key := t.(string) // the decoder lets only strings be keys
			if seen[key] {
				return Mismatch("ambiguous: key %q is there twice", key)
			}
			seen[key] = true
			if want := known[strings.ToLower(key)]; !free && want != "" && want != key {
				return Mismatch("ambiguous: key %q, want %q", key, want)
			}
			if err := object(dec, free || key == "annotations", depth+1); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	if _, err := dec.Token(); err != nil { // the closing delimiter
		return Mismatch("not JSON: %v", err)
	}
	return nil
}

// FormatPlatform is os/architecture[/variant], the way command lines write a platform.
func FormatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// maxIndexBytes bounds index.json, which lists all names and so may outgrow a document.
const maxIndexBytes = 64 << 20

// An index is index.json with everything that this package does not know kept as the bytes it was.
type index struct {
	fields  []field // in order; the value of "manifests" is unused
	entries []entry
}

type field struct {
	key   string
	value json.RawMessage
}

type entry struct {
	raw json.RawMessage
	d   ocispec.Descriptor
}

func (e entry) name() string { return e.d.Annotations[ocispec.AnnotationRefName] }

func parseIndex(data []byte) (*index, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("index.json: not a JSON object")
	}
	x := &index{}
	found := false
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("index.json: %w", err)
		}
		f := field{key: t.(string)} // the decoder lets only strings be keys
		if slices.ContainsFunc(x.fields, func(o field) bool { return o.key == f.key }) {
			return nil, fmt.Errorf("index.json: ambiguous: key %q is there twice", f.key)
		}
		if err := dec.Decode(&f.value); err != nil {
			return nil, fmt.Errorf("index.json: %w", err)
		}
		switch f.key {
		case "schemaVersion":
			if string(f.value) != "2" {
				return nil, fmt.Errorf("index.json: schemaVersion %s, want 2", f.value)
			}
		case "layers", "config":
			return nil, fmt.Errorf("index.json: ambiguous: %s in an index", f.key)
		case "manifests":
			found = true
			var raws []json.RawMessage
			if err := json.Unmarshal(f.value, &raws); err != nil {
				return nil, fmt.Errorf("index.json: manifests: %w", err)
			}
			for i, raw := range raws {
				e := entry{raw: raw}
				if err := json.Unmarshal(raw, &e.d); err != nil {
					return nil, fmt.Errorf("index.json: entry %d: %w", i, err)
				}
				x.entries = append(x.entries, e)
			}
		}
		x.fields = append(x.fields, f)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if rest, _ := dec.Token(); rest != nil {
		return nil, errors.New("index.json: data after the document")
	}
	if !found {
		x.fields = append(x.fields, field{key: "manifests"})
	}
	return x, nil
}

func (x *index) bytes() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range x.fields {
		if i > 0 {
			b.WriteByte(',')
		}
		key, _ := json.Marshal(f.key) // a string always marshals
		b.Write(key)
		b.WriteByte(':')
		if f.key != "manifests" {
			b.Write(f.value)
			continue
		}
		b.WriteByte('[')
		for j, e := range x.entries {
			if j > 0 {
				b.WriteByte(',')
			}
			b.Write(e.raw)
		}
		b.WriteByte(']')
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func (l *Layout) index() (*index, error) {
	data, err := l.read(ocispec.ImageIndexFile, maxIndexBytes)
	if err != nil {
		return nil, fmt.Errorf("image layout %s: %w", l.dir, err)
	}
	x, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("image layout %s: %w", l.dir, err)
	}
	return x, nil
}

// edit changes index.json under the lock of names. If change fails, nothing is written.
func (l *Layout) edit(change func(x *index) error) error {
	lock, err := atomicfile.LockPath(l.dir, true)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	x, err := l.index()
	if err != nil {
		return err
	}
	old := x.bytes()
	if err := change(x); err != nil {
		return err
	}
	data := x.bytes()
	if bytes.Equal(old, data) {
		return nil
	}
	return l.replace(ocispec.ImageIndexFile, data)
}

// Entries returns the descriptors in index.json, in its order. Names are in their annotation
// org.opencontainers.image.ref.name.
func (l *Layout) Entries() ([]ocispec.Descriptor, error) {
	x, err := l.index()
	if err != nil {
		return nil, err
	}
	ds := make([]ocispec.Descriptor, len(x.entries))
	for i, e := range x.entries {
		ds[i] = e.d
	}
	return ds, nil
}

// Resolve finds a name, or a digest ("sha256:…") of a manifest or index in the layout. Names are compared
// byte by byte: whoever takes references from people normalises them first (image.Normalize).
func (l *Layout) Resolve(ctx context.Context, name string) (ocispec.Descriptor, error) {
	x, err := l.index()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := x.resolve(name)
	if err == nil {
		return d, nil
	}
	if dg := digest.Digest(name); errors.Is(err, fs.ErrNotExist) && dg.Validate() == nil {
		if d, err := l.documentByDigest(ctx, dg); !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
	}
	return d, fmt.Errorf("image layout %s: %w", l.dir, err)
}

func (x *index) resolve(name string) (ocispec.Descriptor, error) {
	var found []ocispec.Descriptor
	for _, e := range x.entries {
		if e.name() == name && name != "" || string(e.d.Digest) == name {
			if len(found) == 0 || found[0].Digest != e.d.Digest {
				found = append(found, e.d)
			}
		}
	}
	switch len(found) {
	case 0:
		return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", name, fs.ErrNotExist)
	case 1:
		if err := descriptor.Check(found[0]); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", name, err)
		}
		return found[0], nil
	}
	return ocispec.Descriptor{}, fault.Hint(fmt.Errorf("image %s: the name stands for %s and for %s", name, found[0].Digest, found[1].Digest),
		"use one of the digests")
}

// documentByDigest describes a manifest or index that no entry of index.json names, such as one platform's
// manifest inside an index.
func (l *Layout) documentByDigest(ctx context.Context, dg digest.Digest) (ocispec.Descriptor, error) {
	size, err := l.Size(dg)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{Digest: dg, Size: size}
	data, err := l.ReadAll(ctx, d)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	doc, err := descriptor.Parse("", data)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("blob %s: %w", dg, err)
	}
	d.MediaType = doc.MediaType
	return d, nil
}

// Names as image-spec's annotations.md has them (org.opencontainers.image.ref.name).
var validName = regexp.MustCompile(`^[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*$`)

const maxNameBytes = 1024

// CheckName refuses what is no name by image-spec's grammar. References that repositories allow beyond it
// (a__b) are names too.
func CheckName(name string) error {
	if len(name) > maxNameBytes || !validName.MatchString(strings.ReplaceAll(name, "__", "_x_")) &&
		!looseName.MatchString(name) {
		return fault.Usagef("name %q: want words of letters and digits joined by one of - . _ : @ + /", name)
	}
	return nil
}

// looseName is what the reference grammar of distribution has beyond image-spec's: "a__b", "a---b".
var looseName = regexp.MustCompile(`^[A-Za-z0-9]+(?:(?:[-._:@+/]|__|-+)[A-Za-z0-9_][A-Za-z0-9_.-]*)*$`)

// Tag gives the document d the name, which is taken from whatever had it before. An empty name adds an entry
// without a name unless d has an entry already. d's annotations and platform are kept in the entry. Where the
// old entry has the same digest, the platforms of a sparse index add up.
func (l *Layout) Tag(name string, d ocispec.Descriptor) error {
	if name != "" {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	if err := descriptor.Check(d); err != nil {
		return err
	}
	if !descriptor.IsIndex(d.MediaType) && !descriptor.IsManifest(d.MediaType) {
		return fmt.Errorf("name %s: media type %q, want an index or a manifest", name, d.MediaType)
	}
	// The check that the blob is there and the name that keeps it belong together: GC stays out.
	share, err := atomicfile.LockPath(filepath.Join(l.dir, ocispec.ImageLayoutFile), false)
	if err != nil {
		return err
	}
	defer share.Unlock()
	if !l.hasWhole(d) {
		return fmt.Errorf("name %s: blob %s: not in image layout %s: %w", name, d.Digest, l.dir, fs.ErrNotExist)
	}
	annotations := map[string]string{}
	for k, v := range d.Annotations {
		annotations[k] = v
	}
	delete(annotations, ocispec.AnnotationRefName)
	if name != "" {
		annotations[ocispec.AnnotationRefName] = name
	}
	d.Data = nil
	return l.edit(func(x *index) error {
		at := -1
		for i := 0; i < len(x.entries); i++ {
			e := x.entries[i]
			same := e.d.Digest == d.Digest
			if same {
				joinPlatforms(annotations, e.d.Annotations)
			}
			switch {
			case name == "" && same:
				return nil
			case name == "" || e.name() != name:
			case at < 0:
				at = i
				if same && e.d.Annotations[AnnotationPlatforms] == annotations[AnnotationPlatforms] {
					annotations, d = merged(e.d.Annotations, annotations), e.d
				}
			default: // a name that was there twice ends up once
				x.entries = slices.Delete(x.entries, i, i+1)
				i--
			}
		}
		d.Annotations = annotations
		if len(annotations) == 0 {
			d.Annotations = nil
		}
		raw, err := json.Marshal(d)
		if err != nil {
			return err
		}
		switch {
		case at < 0:
			x.entries = append(x.entries, entry{raw, d})
		case x.entries[at].d.Digest != d.Digest || !sameAnnotations(x.entries[at].d.Annotations, d.Annotations):
			x.entries[at] = entry{raw, d}
		}
		return nil
	})
}

func merged(a, b map[string]string) map[string]string {
	m := map[string]string{}
	for k, v := range a {
		m[k] = v
	}
	for k, v := range b {
		m[k] = v
	}
	return m
}

func sameAnnotations(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// joinPlatforms adds the platforms of old to annotations. An entry without the mark has all platforms.
func joinPlatforms(annotations, old map[string]string) {
	mine, sparse := annotations[AnnotationPlatforms]
	if !sparse {
		return
	}
	theirs, sparse := old[AnnotationPlatforms]
	if !sparse {
		delete(annotations, AnnotationPlatforms)
		return
	}
	all := append(strings.Split(mine, ","), strings.Split(theirs, ",")...)
	slices.Sort(all)
	annotations[AnnotationPlatforms] = strings.Join(slices.Compact(all), ",")
}

// Untag removes a name. Blobs stay until GC. Without the name, the error is fs.ErrNotExist.
func (l *Layout) Untag(name string) error {
	return l.remove(name, func(e entry) bool { return e.name() == name })
}

// Remove removes every entry of a document, with all its names. Without one, the error is fs.ErrNotExist.
func (l *Layout) Remove(d digest.Digest) error {
	return l.remove(string(d), func(e entry) bool { return e.d.Digest == d })
}

func (l *Layout) remove(what string, match func(entry) bool) error {
	return l.edit(func(x *index) error {
		n := len(x.entries)
		x.entries = slices.DeleteFunc(x.entries, match)
		if len(x.entries) == n {
			return fmt.Errorf("image layout %s: image %s: %w", l.dir, what, fs.ErrNotExist)
		}
		return nil
	})
}

// DropUnnamed removes the entries without a name of these documents, which something else keeps now.
func (l *Layout) DropUnnamed(ds []digest.Digest) error {
	return l.edit(func(x *index) error {
		x.entries = slices.DeleteFunc(x.entries, func(e entry) bool { return e.name() == "" && slices.Contains(ds, e.d.Digest) })
		return nil
	})
}

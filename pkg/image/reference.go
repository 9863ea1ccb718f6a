// SPDX-License-Identifier: Apache-2.0

// Package image is the meaning of image documents: references, operands, platforms, configs. It reads
// content through [Store] and does not care where that keeps it; it opens no files and speaks no protocol.
package image

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// A Reference names an image in a registry, in full: what people leave out is filled in as Docker does it.
type Reference struct {
	Host       string // "docker.io", "localhost:5000"
	Repository string // "library/nginx"
	Tag        string // "" if there is only a digest
	Digest     digest.Digest
}

// ParseReference reads host/repository[:tag][@digest]. Without a host it is docker.io, without tag and digest
// the tag is latest. Where both are given, both stay: the digest decides, the tag is for people.
func ParseReference(s string) (Reference, error) {
	if bare, ok := strings.CutPrefix(s, "docker://"); ok {
		return Reference{}, fault.Hint(fault.Usagef("reference %q: no scheme is wanted", s), "write %s", bare)
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fault.Usagef("reference %q: %v", s, err)
	}
	named = reference.TagNameOnly(named)
	r := Reference{Host: reference.Domain(named), Repository: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
	}
	return r, nil
}

// String is the full reference, the form in which names are kept in image layouts.
func (r Reference) String() string {
	s := r.Host + "/" + r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// Familiar is the short form that people write: nginx:1.27 for docker.io/library/nginx:1.27.
func (r Reference) Familiar() string {
	s := strings.TrimPrefix(r.String(), "docker.io/")
	if rest, ok := strings.CutPrefix(s, "library/"); ok && !strings.Contains(rest, "/") && r.Host == "docker.io" {
		return rest
	}
	return s
}

// Normalize returns the full reference: "nginx:1.27" becomes "docker.io/library/nginx:1.27".
func Normalize(ref string) (string, error) {
	r, err := ParseReference(ref)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}

// Familiar shortens a full reference for people; what is none is returned as it is.
func Familiar(name string) string {
	r, err := ParseReference(name)
	if err != nil || r.String() != name {
		return name
	}
	return r.Familiar()
}

// Kind is the kind of place that an operand names.
type Kind int

// The kinds of operands. The position of a Reference says whether it is looked up in a registry or in the
// default image layout.
const (
	KindReference Kind = iota
	KindLayout
	KindOCIArchive
	KindDockerArchive
)

var schemes = map[Kind]string{KindLayout: "oci:", KindOCIArchive: "oci-archive:", KindDockerArchive: "docker-archive:"}

// An Operand is what the command line calls IMAGE (ctr-cli(7), Operands).
type Operand struct {
	Kind Kind
	// Path is the directory or file; "-" is stdin or stdout. Empty for a reference.
	Path string
	// Name is the full reference, or the name inside the layout or archive, as it was written there.
	// Empty: the only image there is.
	Name string
	// Digest selects an entry, or any manifest of a layout, instead of a name.
	Digest digest.Digest
}

// ParseOperand reads REFERENCE, oci:DIR[:NAME|@DIGEST], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME].
// A digest alone (sha256:…) is a reference to that document in the default layout. DIR and FILE end at the
// first colon.
func ParseOperand(s string) (Operand, error) {
	for kind, scheme := range schemes {
		rest, ok := strings.CutPrefix(s, scheme)
		if !ok {
			continue
		}
		o := Operand{Kind: kind}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 && !strings.Contains(rest[:at], ":") {
			if d := digest.Digest(rest[at+1:]); strings.Contains(string(d), ":") {
				if err := d.Validate(); err != nil {
					return Operand{}, fault.Usagef("%q: digest %q: %v", s, string(d), err)
				}
				o.Digest, rest = d, rest[:at]
			}
		}
		o.Path, o.Name, _ = strings.Cut(rest, ":")
		if o.Path == "" {
			return Operand{}, fault.Usagef("%q: want a path after %s", s, scheme)
		}
		if o.Path == "-" && kind == KindLayout {
			return Operand{}, fault.Usagef("%q: a layout is a directory, want oci-archive:- for a stream", s)
		}
		return o, nil
	}
	if d := digest.Digest(s); d.Validate() == nil {
		return Operand{Digest: d}, nil
	}
	r, err := ParseReference(s)
	if err != nil {
		return Operand{}, err
	}
	return Operand{Name: r.String(), Digest: r.Digest}, nil
}

// String is the operand as one would type it.
func (o Operand) String() string {
	switch {
	case o.Kind == KindReference && o.Name == "":
		return string(o.Digest)
	case o.Kind == KindReference:
		return o.Name
	case o.Digest != "":
		return fmt.Sprintf("%s%s@%s", schemes[o.Kind], o.Path, o.Digest)
	case o.Name != "":
		return schemes[o.Kind] + o.Path + ":" + o.Name
	}
	return schemes[o.Kind] + o.Path
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/image"
)

// Names in a layout are full references; clients of the server know repositories and tags. The rules of
// spec/layout.md ("Serving"): REPOSITORY:TAG is taken as the reference that a person would mean by it, so that
// "app" is docker.io/library/app and "ghcr.io/org/app" is itself; if nothing has that name, a name that is
// REPOSITORY:TAG literally, or with any other host before it, will do.

// preference says how well a name in the layout answers to repository and tag: 0 is best, -1 not at all.
func preference(name, repository, tag string) int {
	short := repository + ":" + tag
	if full, err := image.Normalize(short); err == nil && name == full {
		return 0
	}
	if name == short {
		return 1
	}
	host, rest, ok := strings.Cut(name, "/")
	if ok && rest == short && strings.ContainsAny(host, ".:") || host == "localhost" && rest == short {
		return 2
	}
	return -1
}

// lookUp finds the entry for repository and tag.
func lookUp(entries []ocispec.Descriptor, repository, tag string) (ocispec.Descriptor, bool) {
	best, found := -1, ocispec.Descriptor{}
	for _, e := range entries {
		p := preference(e.Annotations[ocispec.AnnotationRefName], repository, tag)
		if p >= 0 && (best < 0 || p < best) {
			best, found = p, e
		}
	}
	return found, best >= 0
}

// split takes a name apart into what a client calls it: the repositories it is in, best known first, and the tag.
func split(name string) (repositories []string, tag string) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.ContainsAny(name[i:], "/") || strings.Contains(name, "@") {
		return nil, ""
	}
	repository, tag := name[:i], name[i+1:]
	host, rest, ok := strings.Cut(repository, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return []string{repository}, tag
	}
	repositories = []string{rest}
	if host == "docker.io" {
		if short, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(short, "/") {
			repositories = append(repositories, short)
		}
	}
	if !strings.Contains(host, ":") {
		repositories = append(repositories, repository)
	}
	return repositories, tag
}

// tagsOf lists the tags of a repository, sorted.
func tagsOf(entries []ocispec.Descriptor, repository string) (tags []string) {
	for _, e := range entries {
		name := e.Annotations[ocispec.AnnotationRefName]
		if rs, tag := split(name); slices.Contains(rs, repository) {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// repositoriesOf lists the repositories that names are in, each once, by the first of its forms, sorted.
func repositoriesOf(entries []ocispec.Descriptor) (repositories []string) {
	for _, e := range entries {
		if rs, _ := split(e.Annotations[ocispec.AnnotationRefName]); rs != nil {
			repositories = append(repositories, rs[0])
		}
	}
	slices.Sort(repositories)
	return slices.Compact(repositories)
}

// namesOf lists the names of a document that are in a repository.
func namesOf(entries []ocispec.Descriptor, repository string, d digest.Digest) (names []string) {
	for _, e := range entries {
		name := e.Annotations[ocispec.AnnotationRefName]
		if rs, _ := split(name); e.Digest == d && (name == "" || slices.Contains(rs, repository)) {
			names = append(names, name)
		}
	}
	return names
}

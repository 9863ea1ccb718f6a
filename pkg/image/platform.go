// SPDX-License-Identifier: Apache-2.0

package image

import (
	"regexp"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
)

var platformPart = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// ParsePlatform reads os/architecture[/variant], an architecture alone (for linux), or "local". Common other
// spellings (x86_64, aarch64, armhf) are taken.
func ParsePlatform(s string) (ocispec.Platform, error) {
	if s == "local" {
		return DefaultPlatform(), nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	for _, p := range parts {
		if len(parts) > 3 || !platformPart.MatchString(p) {
			return ocispec.Platform{}, fault.Usagef("platform %q: want os/architecture[/variant], such as linux/arm64", s)
		}
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normal(p), nil
}

// normal gives platforms that are the same the same spelling.
func normal(p ocispec.Platform) ocispec.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if p.Variant != "" && p.Variant[0] >= '1' && p.Variant[0] <= '9' {
		p.Variant = "v" + p.Variant
	}
	switch {
	case p.Architecture == "arm64" && p.Variant == "v8", p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	}
	return p
}

// FormatPlatform is the inverse of ParsePlatform.
func FormatPlatform(p ocispec.Platform) string { return descriptor.FormatPlatform(p) }

// DefaultPlatform is the one of the kernel we run on.
func DefaultPlatform() ocispec.Platform {
	p := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	var u unix.Utsname
	if p.Architecture == "arm" && unix.Uname(&u) == nil {
		machine := unix.ByteSliceToString(u.Machine[:])
		if v, ok := strings.CutPrefix(machine, "armv"); ok && len(v) > 0 && v[0] >= '5' && v[0] < '8' {
			p.Variant = "v" + v[:1]
		}
	}
	return normal(p)
}

// rank says how well a machine of platform want runs images for have: 0 not at all, more is better. A lower
// variant of the same architecture runs; a higher one does not.
func rank(want, have ocispec.Platform) int {
	want, have = normal(want), normal(have)
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return 0
	}
	if want.OSVersion != "" && have.OSVersion != want.OSVersion {
		return 0
	}
	w, okW := level(want)
	h, okH := level(have)
	switch {
	case want.Variant == have.Variant:
		return 100
	case !okW || !okH || h > w:
		return 0
	}
	return 100 - (w - h)
}

// level orders the variants of an architecture.
func level(p ocispec.Platform) (int, bool) {
	base := map[string]int{"amd64": 1, "arm64": 8, "arm": 7}
	n, ordered := base[p.Architecture]
	if p.Variant == "" {
		return n, ordered
	}
	if !ordered || len(p.Variant) != 2 || p.Variant[0] != 'v' || p.Variant[1] < '1' || p.Variant[1] > '9' {
		return 0, false
	}
	return int(p.Variant[1] - '0'), true
}

// Attestation says whether a manifest in an index is no image but a statement about one, as BuildKit adds them.
func Attestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// Choose returns the manifest of an index that suits the platform best, the first of equals; false if none
// does. A manifest without a platform is taken only if it is the only one.
func Choose(manifests []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, bool) {
	var best ocispec.Descriptor
	most, images := 0, 0
	for _, d := range manifests {
		if Attestation(d) {
			continue
		}
		images++
		if d.Platform == nil {
			continue
		}
		if r := rank(want, *d.Platform); r > most {
			best, most = d, r
		}
	}
	if most == 0 && images == 1 {
		for _, d := range manifests {
			if !Attestation(d) && d.Platform == nil {
				return d, true
			}
		}
	}
	return best, most > 0
}

// Platforms lists the platforms of an index's images, in order.
func Platforms(manifests []ocispec.Descriptor) (names []string) {
	for _, d := range manifests {
		if d.Platform != nil && !Attestation(d) {
			names = append(names, FormatPlatform(normal(*d.Platform)))
		}
	}
	return names
}

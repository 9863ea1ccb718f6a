// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// AnnotationOverlay holds an [Overlay] as JSON: ctr-run mounts it as the root filesystem inside the
// container's own mount namespace.
const AnnotationOverlay = "dev.ctr.rootfs.overlay"

// An Overlay is a root filesystem made of layers (spec/bundle.md, Overlay). Paths are absolute or relative to
// the bundle.
type Overlay struct {
	Lower   []string `json:"lower"`             // topmost first, at least one
	Upper   string   `json:"upper,omitempty"`   // empty: the root filesystem is read-only
	Work    string   `json:"work,omitempty"`    // with upper: an empty directory on the same file system
	Options []string `json:"options,omitempty"` // further overlay options, "userxattr" for one
}

// overlayOptions are what an overlay's options may be: none of them names a path.
var overlayOptions = []string{
	"userxattr", "volatile", "metacopy=off", "redirect_dir=off", "redirect_dir=nofollow", "index=off", "xino=off", "xino=auto", "nfs_export=off",
}

// maxLayers is overlayfs's own limit (OVL_MAX_STACK).
const maxLayers = 500

// ParseOverlay reads the value of [AnnotationOverlay] and refuses what cannot be mounted.
func ParseOverlay(value string) (*Overlay, error) {
	o := new(Overlay)
	if err := unmarshal([]byte(value), o); err != nil {
		return nil, fmt.Errorf("%s: %w", AnnotationOverlay, err)
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", AnnotationOverlay, err)
	}
	return o, nil
}

func (o *Overlay) check() error {
	switch {
	case len(o.Lower) == 0:
		return errors.New("lower: missing, want at least one directory")
	case len(o.Lower) > maxLayers:
		return fmt.Errorf("lower: %d directories, too many, want at most %d", len(o.Lower), maxLayers)
	case o.Upper != "" && o.Work == "":
		return errors.New("upper without work, want both or none")
	case o.Upper == "" && o.Work != "":
		return errors.New("work without upper, want both or none")
	}
	for _, p := range slices.Concat(o.Lower, []string{o.Upper, o.Work}) {
		if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("path %q: control character", p)
		}
	}
	if slices.Contains(o.Lower, "") {
		return errors.New("lower: an empty path")
	}
	for _, opt := range o.Options {
		if !slices.Contains(overlayOptions, opt) {
			return fmt.Errorf("options: %q is not allowed, want some of %s", opt, strings.Join(overlayOptions, " "))
		}
	}
	return nil
}

// An Image says which image a bundle was unpacked from (image.json).
type Image struct {
	Name     string          `json:"name,omitempty"`     // full reference
	Digest   string          `json:"digest"`             // of the manifest
	Index    string          `json:"index,omitempty"`    // digest of the index it was chosen from
	Platform string          `json:"platform,omitempty"` // os/architecture[/variant]
	Config   json.RawMessage `json:"config"`             // the image config document
}

// ParseImage reads image.json.
func ParseImage(data []byte) (*Image, error) {
	i := new(Image)
	if err := unmarshal(data, i); err != nil {
		return nil, fmt.Errorf("%s: %w", ImageFile, err)
	}
	if err := checkDigest("digest", i.Digest); err != nil {
		return nil, err
	}
	if i.Index != "" {
		if err := checkDigest("index", i.Index); err != nil {
			return nil, err
		}
	}
	if len(i.Config) == 0 || i.Config[0] != '{' {
		return nil, fmt.Errorf("%s: config: missing, want the image config, an object", ImageFile)
	}
	return i, nil
}

func checkDigest(field, digest string) error {
	algorithm, hex, _ := strings.Cut(digest, ":")
	want := map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]
	if want == 0 || len(hex) != want || strings.Trim(hex, "0123456789abcdef") != "" {
		return fmt.Errorf("%s: %s %q is malformed, want sha256: and 64 lower-case hexadecimal digits", ImageFile, field, digest)
	}
	return nil
}

func unmarshal(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return jsonError(data, err)
	}
	return nil
}

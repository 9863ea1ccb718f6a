// SPDX-License-Identifier: Apache-2.0

// Package layer turns layer archives into trees and trees into layer archives (image-spec, layer.md): the
// only unpacker and the only packer of the tools; ADD in a build uses it too.
//
//	res, err := layer.Apply(ctx, blob, dir, layer.Options{MediaType: d.MediaType, DiffID: want})
//	res, err := layer.Diff(ctx, w, upper, layer.DiffOptions{Epoch: &epoch})
//
// A tree has one of two forms. [Overlay] is what overlayfs wants as a lower directory: one directory for each
// layer, whiteouts as character devices 0:0, opaque directories marked with an extended attribute. [Plain] is
// the tree that a container sees: each layer is applied over the ones before, whiteouts remove.
//
// Archives are hostile. Every name is resolved component by component on directory handles below the root
// that was given (openat2, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS; links are followed by hand and never lead
// out), files are made with O_EXCL after what was there is unlinked, and metadata goes through descriptors or
// AT_SYMLINK_NOFOLLOW. No program is run, and bytes, entries and the ratio of compression are bounded.
//
// umoci's layer code, the obvious library, resolves names to strings that are opened again, checks no ids and no
// sizes, cannot link to files of layers below in overlayfs form and reads and restores the parent directory's
// metadata for each entry. Hence our own; what trees come out is tested against umoci's.
package layer

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// A Form is the form of a tree on disk: Overlay or Plain.
type Form interface{ form() }

// Overlay is the form of an overlayfs lower or upper directory.
type Overlay struct {
	UserXattr bool // marks are user.overlay.*, for mounts with the option userxattr (rootless)
}

// Plain is the form of a tree that is used as it is.
type Plain struct{}

func (Overlay) form() {}
func (Plain) form()   {}

func (o Overlay) xattr(name string) string {
	if o.UserXattr {
		return "user.overlay." + name
	}
	return "trusted.overlay." + name
}

// Options for Apply.
type Options struct {
	Form      Form          // nil: Overlay{}
	MediaType string        // of the archive; empty: whatever the content shows, bzip2 too
	DiffID    digest.Digest // what the uncompressed archive must have; empty: not checked

	// Dir is where in the tree the archive's names start, resolved inside the root (ADD). Empty: the root.
	Dir string
	// Literal takes names that start with ".wh." for files and not for whiteouts (ADD).
	Literal bool
	// Owner, where set, owns every file instead of the archive's owners (ADD --chown).
	Owner *Owner

	// Parents gives the layers below, topmost first, in overlay form. It is called at most once and only when
	// what the archive holds cannot be unpacked without: directories that it does not name, hard links to
	// files of layers below, whiteouts. It may wait for those layers. Apply closes none of the handles.
	// Nil: there are none. Form Plain does not use it.
	Parents func(context.Context) ([]*rootfd.Root, error)

	// Rootless leaves out what only root may do: owners, devices, extended attributes outside user.*.
	Rootless bool

	MaxBytes   int64 // of the uncompressed archive, holes of sparse files counted; 0: 128 GiB
	MaxEntries int64 // 0: 4 million
	MaxRatio   int64 // uncompressed ÷ compressed bytes, looked at from 64 MiB on; 0: 2,000, from 1 GiB on
}

// An Owner is a numeric user and group.
type Owner struct{ UID, GID uint32 }

// A Result says what Apply read.
type Result struct {
	DiffID     digest.Digest
	Bytes      int64 // of the uncompressed archive
	Entries    int64
	Relies     bool // Parents was called: the tree is right only above those parents
	NamesRoot  bool // the archive holds the root directory's metadata
	OpaqueRoot bool // the archive hides everything below it; overlayfs knows no such mark on a root
}

// DiffOptions for Diff.
type DiffOptions struct {
	Form  Form       // of the tree; nil: Overlay{}; in a Plain tree nothing is a whiteout
	Epoch *time.Time // no file's time is later; nil: times as they are (whole seconds)
	Root  bool       // with an entry "./" for the directory itself

	// Skip leaves out a path ("etc/hosts") and what is below it; nil: nothing.
	Skip func(path string) bool
	// Owner, where set, owns every file.
	Owner *Owner
}

// A DiffResult says what Diff wrote.
type DiffResult struct {
	Entries int64 // whiteouts counted
	Bytes   int64 // of file content
}

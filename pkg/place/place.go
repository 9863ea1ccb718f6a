// SPDX-License-Identifier: Apache-2.0

// Package place says where the tools keep things: one root for what lasts and one for what a reboot
// may take. Both are relocatable; nothing below them holds its own absolute path.
package place

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Root is the directory of what lasts: $CTR_ROOT, else /var/lib/ctr, for users other than root
// $XDG_DATA_HOME/ctr (XDG Base Directory Specification).
func Root() string {
	if d := os.Getenv("CTR_ROOT"); d != "" {
		return d
	}
	if os.Geteuid() == 0 {
		return "/var/lib/ctr"
	}
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "ctr")
	}
	return filepath.Join(os.Getenv("HOME"), ".local", "share", "ctr")
}

// Run is the directory of what does not survive a reboot: $CTR_RUN, else /run/ctr, for users other
// than root $XDG_RUNTIME_DIR/ctr.
func Run() string {
	if d := os.Getenv("CTR_RUN"); d != "" {
		return d
	}
	if os.Geteuid() == 0 {
		return "/run/ctr"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		return filepath.Join(d, "ctr")
	}
	return filepath.Join(os.TempDir(), "ctr-"+strconv.Itoa(os.Geteuid()))
}

// Below the roots: the one list of names, so that no tool invents a second one.

// Images is the default image layout.
func Images(root string) string { return filepath.Join(root, "images") }

// Snapshots holds unpacked layers.
func Snapshots(root string) string { return filepath.Join(root, "snapshots") }

// Volumes holds one directory for each named volume.
func Volumes(root string) string { return filepath.Join(root, "volumes") }

// Networks holds one CNI conflist for each network.
func Networks(root string) string { return filepath.Join(root, "networks") }

// Projects holds one directory for each Compose project.
func Projects(root string) string { return filepath.Join(root, "projects") }

// Build is the build cache.
func Build(root string) string { return filepath.Join(root, "build") }

// Containers holds the state directory of each container.
func Containers(run string) string { return filepath.Join(run, "containers") }

// Netns holds the handles (bind mounts) of network namespaces.
func Netns(run string) string { return filepath.Join(run, "netns") }

// Attachments holds what is known of each bundle that is joined to networks.
func Attachments(run string) string { return filepath.Join(run, "attachments") }

// Leases holds the addresses given out (host-local's dataDir), one directory for each network.
func Leases(run string) string { return filepath.Join(run, "leases") }

// CNICache is libcni's cache directory.
func CNICache(run string) string { return filepath.Join(run, "cni") }

// Layers holds the mounts of layer images, one for each layer and boot.
func Layers(run string) string { return filepath.Join(run, "layers") }

// Private makes the directory dir, for its owner only, where it is missing. One that somebody else owns or
// can write to is refused (fs.ErrPermission): what lies in it would be run, or deleted, with our rights.
func Private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, stat := range []func(string) (fs.FileInfo, error){os.Lstat, os.Stat} {
		st, err := stat(dir)
		if err != nil {
			return err
		}
		if uid := st.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
			return fmt.Errorf("%s: owned by user %d, want %d: %w", dir, uid, os.Geteuid(), fs.ErrPermission)
		}
		if st.IsDir() && st.Mode()&0o022 != 0 {
			return fmt.Errorf("%s: mode %#o lets others write, want 0700: %w", dir, st.Mode().Perm(), fs.ErrPermission)
		}
	}
	return nil
}

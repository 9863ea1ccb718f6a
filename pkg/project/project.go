// SPDX-License-Identifier: Apache-2.0

// Package project owns the project contract (spec/project.md, ctr-project(5)): where the bundles of a
// Compose project are, what they are called, and which annotations in a bundle's config.json say what it
// belongs to. Those annotations are the only memory of ctr-compose. The package keeps no file of its own and
// starts nothing.
package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
)

// Annotations of a container, labels of a network or volume. The names are Docker's, so that tools which
// group by them go on working (spec/project.md, Annotations).
const (
	LabelProject     = "com.docker.compose.project"
	LabelService     = "com.docker.compose.service"
	LabelNumber      = "com.docker.compose.container-number"
	LabelOneOff      = "com.docker.compose.oneoff" // True or False
	LabelConfigHash  = "com.docker.compose.config-hash"
	LabelDependsOn   = "com.docker.compose.depends_on" // service:condition:restart, comma between
	LabelWorkingDir  = "com.docker.compose.project.working_dir"
	LabelConfigFiles = "com.docker.compose.project.config_files"
	LabelNetwork     = "com.docker.compose.network" // the key in the file, on networks
	LabelVolume      = "com.docker.compose.volume"  // the key in the file, on volumes
	LabelAnonymous   = "com.docker.volume.anonymous"
	LabelImage       = "dev.ctr.compose.image"   // the reference the container was made from
	LabelPublish     = "dev.ctr.compose.publish" // JSON array of ctr-net's --publish values
)

// MaxNameBytes bounds project names, MaxIDBytes container ids: they become names of directories, networks,
// cgroups.
const (
	MaxNameBytes = 63
	MaxIDBytes   = 200
)

// CheckName refuses what is no project name: [a-z0-9][a-z0-9_-]*, at most MaxNameBytes.
func CheckName(name string) error {
	ok := name != "" && len(name) <= MaxNameBytes && name[0] != '-' && name[0] != '_' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
	if ok {
		return nil
	}
	return fault.Hint(fault.Usagef("project name %q: want lower-case letters, digits, - and _, a letter or digit first, at most %d bytes", name, MaxNameBytes),
		"choose one with -p NAME or with name: in the Compose file")
}

// CheckID refuses what is no container id: [A-Za-z0-9][A-Za-z0-9_.-]*, at most MaxIDBytes.
func CheckID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	ok := id != "" && len(id) <= MaxIDBytes && strings.ContainsRune(letters, rune(id[0])) && strings.Trim(id, letters+"_.-") == ""
	if ok {
		return nil
	}
	return fmt.Errorf("container name %q: want letters, digits, _ . and -, a letter or digit first, at most %d bytes", id, MaxIDBytes)
}

// ContainerID is the id of a service's n-th container, counted from 1.
func ContainerID(project, service string, n int) string {
	return project + "-" + service + "-" + strconv.Itoa(n)
}

// Dir is the directory of a project's bundles.
func Dir(root, name string) string { return filepath.Join(place.Projects(root), name) }

// BundleDir is the bundle of a project's container.
func BundleDir(root, name, id string) string { return filepath.Join(Dir(root, name), id) }

// List returns the names of the projects below root, sorted.
func List(root string) ([]string, error) {
	names, err := subdirs(place.Projects(root))
	if err != nil {
		return nil, err
	}
	valid := names[:0]
	for _, n := range names {
		if CheckName(n) == nil {
			valid = append(valid, n)
		}
	}
	return valid, nil
}

// IDs returns the ids of the containers that have a directory in the project, sorted; some may be half-made:
// without a config.json.
func IDs(root, name string) ([]string, error) {
	names, err := subdirs(Dir(root, name))
	if err != nil {
		return nil, err
	}
	valid := names[:0]
	for _, n := range names {
		if CheckID(n) == nil {
			valid = append(valid, n)
		}
	}
	return valid, nil
}

func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// Lock makes the project's directory where it is missing and waits for its exclusive lock, which whoever
// changes the project holds from the first look to the last change.
func Lock(root, name string) (*atomicfile.Lock, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	dir := Dir(root, name)
	for {
		if err := os.MkdirAll(dir, 0o700); errors.Is(err, fs.ErrExist) {
			if st, serr := os.Stat(dir); serr == nil && !st.IsDir() {
				return nil, err
			}
			continue // removed in between
		} else if err != nil {
			return nil, err
		}
		var before, after unix.Stat_t
		if err := unix.Stat(dir, &before); err != nil {
			continue // removed by the last holder (down); make it again
		}
		l, err := atomicfile.LockPath(dir, true)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unix.Stat(dir, &after) == nil && before.Ino == after.Ino && before.Dev == after.Dev {
			return l, nil
		}
		l.Unlock()
	}
}

// RemoveEmpty removes the project's directory if nothing is left in it.
func RemoveEmpty(root, name string) { os.Remove(Dir(root, name)) }

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// Modes of attachment that are no networks.
const (
	HostMode = "host" // the host's own network namespace
	NoneMode = "none" // a network namespace of its own with nothing but lo
)

var (
	nameRE  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]*$`)
	hostRE  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
	ifaceRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// maxNameBytes leaves room for ".conflist" and a temporary file's affixes in NAME_MAX.
const maxNameBytes = 128

// ifNameBytes is IFNAMSIZ without the NUL.
const ifNameBytes = 15

// CheckName refuses what cannot be a network's name: it is a file name and goes to plugins.
func CheckName(name string) error {
	switch {
	case name == HostMode, name == NoneMode:
		return fault.Usagef("network name %q: it is a mode of ctr-net attach", name)
	case !nameRE.MatchString(name), len(name) > maxNameBytes:
		return fault.Usagef("network name %q: want a letter, digit or _, then letters, digits and _.+-, at most %d", name, maxNameBytes)
	}
	return nil
}

// checkHostname refuses what must not become a name in a hosts file.
func checkHostname(what, name string) error {
	if !hostRE.MatchString(name) || len(name) > 253 {
		return fault.Usagef("%s %q: want letters, digits and _.-", what, name)
	}
	return nil
}

func checkInterface(name string) error {
	if !ifaceRE.MatchString(name) || len(name) > ifNameBytes {
		return fault.Usagef("interface name %q: want letters, digits and _.-, at most %d", name, ifNameBytes)
	}
	return nil
}

var lower32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// bridgeName is the name of a network's bridge and of its nftables table: readable, at most 15 bytes, and
// another one for the same network name below another root. salt is 0, or counts collisions.
func bridgeName(root, name string, salt byte) string {
	sum := sha256.Sum256([]byte(root + "\x00" + name + "\x00" + string(salt)))
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, name)
	return "ctr-" + clean[:min(4, len(clean))] + "-" + lower32.EncodeToString(sum[:])[:6]
}

// owner marks the ids of one run directory, so that gc leaves those of others alone.
func owner(run string) string {
	sum := sha256.Sum256([]byte(run))
	return hex.EncodeToString(sum[:3])
}

// newID makes the id of a bundle's attachments, which is the name of its netns handle and the
// CNI_CONTAINERID: the bundle's base name to read, then the owner, then random.
func newID(run, bundleDir string) string {
	var r [4]byte
	rand.Read(r[:]) // never fails (crypto/rand)
	return label(bundleDir) + "-" + owner(run) + hex.EncodeToString(r[:])
}

// label is the base name of a bundle directory as far as it can stand in a host name.
func label(dir string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, filepath.Base(dir))
	if s = strings.Trim(s[:min(40, len(s))], "-"); s == "" {
		return "ctr"
	}
	return s
}

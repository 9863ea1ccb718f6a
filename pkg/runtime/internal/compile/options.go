// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// attrNoSymfollow is MOUNT_ATTR_NOSYMFOLLOW.
const attrNoSymfollow = 0x00200000

// options are the options of one mount, sorted by what has to be done with them (runtime-spec, "Linux mount
// options").
type options struct {
	bind, rbind, remount bool
	copyUp               bool
	idmap, ridmap        bool
	set, clear           uint64 // of the mount: MOUNT_ATTR
	recSet, recClear     uint64 // of the mount and all below it
	propagation          []string
	super                []string // flags of the file system
	data                 []string // what only the file system knows
}

const atimes = unix.MOUNT_ATTR__ATIME

// attribute is what an option does to a mount: bits to set after bits were cleared.
func attribute(name string) (set, clear uint64, ok bool) {
	switch name {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, 0, true
	case "rw":
		return 0, unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, 0, true
	case "suid":
		return 0, unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, 0, true
	case "dev":
		return 0, unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, 0, true
	case "exec":
		return 0, unix.MOUNT_ATTR_NOEXEC, true
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0, true
	case "diratime":
		return 0, unix.MOUNT_ATTR_NODIRATIME, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, atimes, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, atimes, true
	case "relatime", "atime", "norelatime", "nostrictatime":
		return unix.MOUNT_ATTR_RELATIME, atimes, true
	case "nosymfollow":
		return attrNoSymfollow, 0, true
	case "symfollow":
		return 0, attrNoSymfollow, true
	}
	return 0, 0, false
}

// propagation is the MS_ flag of a propagation type, and whether all below a mount is meant.
func propagation(name string) (flag uint64, recursive bool) {
	switch strings.TrimPrefix(name, "r") {
	case "shared":
		flag = unix.MS_SHARED
	case "slave":
		flag = unix.MS_SLAVE
	case "private":
		flag = unix.MS_PRIVATE
	case "unbindable":
		flag = unix.MS_UNBINDABLE
	}
	return flag, flag != 0 && name[0] == 'r'
}

// parseOptions sorts options; a later one wins over an earlier one.
func parseOptions(list []string) (o options) {
	for _, name := range list {
		if set, clear, ok := attribute(name); ok {
			o.set = o.set&^clear | set
			o.clear = (o.clear | clear) &^ set
			if clear == atimes {
				o.set = o.set&^atimes | set
				o.clear |= atimes
			}
			switch name {
			case "ro":
				o.super = append(o.super, "ro")
			case "rw":
				o.super = remove(o.super, "ro")
			}
			continue
		}
		if len(name) > 1 && name[0] == 'r' {
			if set, clear, ok := attribute(name[1:]); ok {
				o.recSet = o.recSet&^clear | set
				o.recClear = (o.recClear | clear) &^ set
				if clear == atimes {
					o.recClear |= atimes
				}
				continue
			}
		}
		if flag, _ := propagation(name); flag != 0 {
			o.propagation = append(o.propagation, name)
			continue
		}
		switch name {
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.rbind = true, true
		case "remount":
			o.remount = true
		case "tmpcopyup":
			o.copyUp = true
		case "idmap":
			o.idmap = true
		case "ridmap":
			o.idmap, o.ridmap = true, true
		case "sync", "dirsync", "lazytime", "mand":
			o.super = append(o.super, name)
		case "async":
			o.super = remove(o.super, "sync")
		case "nolazytime":
			o.super = remove(o.super, "lazytime")
		case "nomand":
			o.super = remove(o.super, "mand")
		case "defaults", "silent", "loud", "iversion", "noiversion", "":
			// Nothing to do: the kernel has its own mind about i_version, and messages are not for us.
		default:
			o.data = append(o.data, name)
		}
	}
	return o
}

func remove(list []string, name string) []string {
	kept := list[:0]
	for _, s := range list {
		if s != name {
			kept = append(kept, s)
		}
	}
	return kept
}

// IsBind says whether a mount with these options is a bind mount, whether everything below its source belongs
// to it, and whether ids are to be mapped (recursively).
func IsBind(list []string) (bind, recursive, idmap, ridmap bool) {
	o := parseOptions(list)
	return o.bind && !o.remount, o.rbind, o.idmap, o.ridmap
}

// bindData refuses options that only a file system could take, for a mount that makes none.
func (o *options) bindData(destination string) error {
	if len(o.data) > 0 {
		return fmt.Errorf("mount %s: found option %q, want one that a bind mount has", destination, o.data[0])
	}
	return nil
}

// Names of all options that are understood, for features.
func OptionNames() []string {
	names := []string{"async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime", "loud", "mand",
		"noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime", "nostrictatime", "nosuid",
		"nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "remount", "rexec", "rnoatime", "rnodev",
		"rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro",
		"rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared", "silent", "slave",
		"strictatime", "suid", "symfollow", "sync", "tmpcopyup", "unbindable", "idmap", "ridmap"}
	return names
}

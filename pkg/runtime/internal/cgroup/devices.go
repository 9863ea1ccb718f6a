// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"math"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// access bits are the kernel's BPF_DEVCG_ACC_*.
const (
	accMknod = 1 << iota
	accRead
	accWrite
	accAll = accMknod | accRead | accWrite
)

const wild = -1 // any major or minor

// A rule allows or denies access to devices. The last rule that matches a device decides, access bit by access bit.
type rule struct {
	allow        bool
	typ          byte // 'b' or 'c'
	major, minor int64
	access       uint8
	usual        bool // one of ours, not asked for
}

// usual are the devices every container may use: node creation (harmless without access), the nodes runtime-spec
// promises, terminals, and TUN, which runc and crun allow as well.
var usual = [...]rule{
	{true, 'c', wild, wild, accMknod, true},
	{true, 'b', wild, wild, accMknod, true},
	{true, 'c', 1, 3, accAll, true},      // null
	{true, 'c', 1, 5, accAll, true},      // zero
	{true, 'c', 1, 7, accAll, true},      // full
	{true, 'c', 1, 8, accAll, true},      // random
	{true, 'c', 1, 9, accAll, true},      // urandom
	{true, 'c', 5, 0, accAll, true},      // tty
	{true, 'c', 5, 2, accAll, true},      // ptmx
	{true, 'c', 136, wild, accAll, true}, // pts
	{true, 'c', 10, 200, accAll, true},   // net/tun
}

// policy is what devices without a matching rule get, and the rules.
type policy struct {
	allow bool
	rules []rule
}

// policyOf starts from deny (runtime-spec says nothing; an allow list is the only safe reading) and adds the usual
// devices last: a bundle cannot deny /dev/null by accident.
func policyOf(list []specs.LinuxDeviceCgroup) (policy, error) {
	p := policy{rules: make([]rule, 0, len(list)+len(usual))}
	for i := range list {
		d := &list[i]
		r := rule{allow: d.Allow, major: wild, minor: wild}
		if d.Major != nil {
			r.major = *d.Major
		}
		if d.Minor != nil {
			r.minor = *d.Minor
		}
		if r.major < wild || r.major > math.MaxInt32 || r.minor < wild || r.minor > math.MaxInt32 {
			return p, fmt.Errorf("linux.resources.devices[%d]: device number %d:%d", i, r.major, r.minor)
		}
		for _, a := range []byte(d.Access) {
			switch a {
			case 'r':
				r.access |= accRead
			case 'w':
				r.access |= accWrite
			case 'm':
				r.access |= accMknod
			default:
				return p, fmt.Errorf("linux.resources.devices[%d]: access %q, want some of rwm", i, d.Access)
			}
		}
		if r.access == 0 {
			return p, fmt.Errorf("linux.resources.devices[%d]: access is empty, want some of rwm", i)
		}
		switch d.Type {
		case "", "a":
			if r.major == wild && r.minor == wild && r.access == accAll {
				p.allow, p.rules = r.allow, p.rules[:0]
				continue
			}
			r.typ = 'b'
			p.add(r)
			r.typ = 'c'
		case "b", "c":
			r.typ = d.Type[0]
		case "u":
			r.typ = 'c'
		default:
			return p, fmt.Errorf("linux.resources.devices[%d]: type %q, want a, b or c", i, d.Type)
		}
		p.add(r)
	}
	if !p.allow || len(p.rules) > 0 {
		for i := range usual {
			p.add(usual[i])
		}
	}
	return p, nil
}

// add appends r unless it changes nothing.
func (p *policy) add(r rule) {
	for i := len(p.rules) - 1; i >= 0; i-- {
		o := &p.rules[i]
		if o.allow != r.allow && o.overlaps(&r) {
			p.rules = append(p.rules, r)
			return
		}
		if o.allow == r.allow && o.same(&r) && r.access&^o.access == 0 {
			return
		}
	}
	if r.allow != p.allow {
		p.rules = append(p.rules, r)
	}
}

func (r *rule) same(o *rule) bool {
	return r.typ == o.typ && r.major == o.major && r.minor == o.minor
}

func (r *rule) overlaps(o *rule) bool {
	return r.typ == o.typ && r.access&o.access != 0 &&
		(r.major == o.major || r.major == wild || o.major == wild) &&
		(r.minor == o.minor || r.minor == wild || o.minor == wild)
}

// String is the form that devices.allow and devices.deny read.
func (r *rule) String() string {
	num := func(n int64) string {
		if n == wild {
			return "*"
		}
		return itoa(n)
	}
	s := string(r.typ) + " " + num(r.major) + ":" + num(r.minor) + " "
	if r.access&accRead != 0 {
		s += "r"
	}
	if r.access&accWrite != 0 {
		s += "w"
	}
	if r.access&accMknod != 0 {
		s += "m"
	}
	return s
}

// devices puts the policy into force: by files on v1, by a BPF program on v2.
func (c *Cgroup) devices(list []specs.LinuxDeviceCgroup, update bool) error {
	p, err := policyOf(list)
	if err != nil {
		return err
	}
	if d := c.dir("devices"); d != "" {
		err = p.writeV1(d, update)
	} else if u := c.unified(); u != "" {
		err = p.attach(u, update)
	}
	if err != nil && errors.Is(err, unix.EPERM) && inUserNS() {
		// In a user namespace nobody can make or open a device that its owner could not open anyway.
		return nil
	}
	return err
}

// inUserNS says whether we run in a user namespace other than the machine's.
func inUserNS() bool {
	b, err := readFile("/proc/self", "uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

// checkV1 refuses what v1 cannot express: it keeps a default and a set of exceptions, and takes an exception back
// only whole, so that a hole in a range would be ignored without a word.
func (p *policy) checkV1() error {
	for i := range p.rules {
		r := &p.rules[i]
		if r.allow != p.allow || r.usual {
			continue
		}
		for j := range p.rules[:i] {
			if o := &p.rules[j]; o.allow != p.allow && o.overlaps(r) && !o.same(r) {
				return fmt.Errorf("linux.resources.devices: %q after %q cannot be expressed on cgroup v1: only a whole earlier rule can be taken back", r, o)
			}
		}
	}
	return nil
}

func (p *policy) writeV1(dir string, update bool) error {
	if err := p.checkV1(); err != nil {
		return err
	}
	if p.allow {
		if err := writeFile(dir, "devices.allow", "a"); err != nil {
			return err
		}
	} else if update {
		// Without a gap in which a running container has no device at all: take away what is no longer there.
		return p.updateV1(dir)
	} else if err := writeFile(dir, "devices.deny", "a"); err != nil {
		return err
	}
	return p.writeRules(dir)
}

func (p *policy) writeRules(dir string) error {
	allow, deny := -1, -1
	defer func() {
		for _, fd := range [...]int{allow, deny} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}()
	for i := range p.rules {
		r := &p.rules[i]
		fd, name := &deny, "devices.deny"
		if r.allow {
			fd, name = &allow, "devices.allow"
		}
		if *fd < 0 {
			var err error
			if *fd, err = openAt(dir, name, unix.O_WRONLY); err != nil {
				return fmt.Errorf("open %s/%s: %w", dir, name, err)
			}
		}
		// A cgroup cannot give what the one above it lacks; the usual devices are then only what there is.
		if err := writeFD(*fd, dir, name, r.String()); err != nil && (!r.usual || !errors.Is(err, unix.EPERM)) {
			return err
		}
	}
	return nil
}

func (p *policy) updateV1(dir string) error {
	have, err := readFile(dir, "devices.list")
	if err != nil {
		return err
	}
	if strings.HasPrefix(string(have), "a ") { // allow-all until now: only a reset changes the default
		if err := writeFile(dir, "devices.deny", "a"); err != nil {
			return err
		}
		return p.writeRules(dir)
	}
	if err := p.writeRules(dir); err != nil {
		return err
	}
	for line := range strings.Lines(string(have)) {
		line = strings.TrimSpace(line)
		if line == "" || p.grants(line) {
			continue
		}
		if err := writeFile(dir, "devices.deny", line); err != nil {
			return err
		}
	}
	// A line of devices.list may have been wider in access than its rule is now.
	return p.writeRules(dir)
}

func (p *policy) grants(line string) bool {
	for i := range p.rules {
		if p.rules[i].allow && p.rules[i].String() == line {
			return true
		}
	}
	return false
}

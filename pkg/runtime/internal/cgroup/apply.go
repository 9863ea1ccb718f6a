// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// Apply sets the limits of a new container, and denies it all devices but the usual ones and those of r, which may
// be nil.
func (c *Cgroup) Apply(r *specs.LinuxResources) error {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	if err := c.limit(r); err != nil {
		return err
	}
	return c.devices(r.Devices, false)
}

// Update changes the limits that r names in a container that runs; without r.Devices its devices stay as they are.
func (c *Cgroup) Update(r *specs.LinuxResources) error {
	if c.V2() {
		if err := c.enable(r); err != nil {
			return err
		}
	}
	if err := c.limit(r); err != nil {
		return err
	}
	if r.Devices == nil {
		return nil
	}
	return c.devices(r.Devices, true)
}

func (c *Cgroup) limit(r *specs.LinuxResources) error {
	var s []setting
	var err error
	if c.V2() {
		s, err = settingsV2(r)
	} else if s, err = settingsV1(r); err == nil && len(r.Unified) > 0 {
		if c.unified() == "" {
			return errors.New("linux.resources.unified needs cgroup v2, which this machine has not mounted")
		}
		s, err = unified(s, r.Unified)
	}
	if err != nil {
		return err
	}
	if len(s) > 0 && len(c.paths) == 0 {
		return fault.Hint(errors.New("linux.resources: this container has no cgroups to limit it in"),
			"run as root, or set linux.cgroupsPath to a directory that is delegated to you")
	}
	if m := r.Memory; m != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate && value(m.Limit) > 0 {
		if err := c.checkUsage(*m.Limit); err != nil {
			return err
		}
	}
	return c.setAll(s)
}

func (c *Cgroup) setAll(s []setting) error {
	var later []setting
	for _, x := range s {
		err := c.set(x)
		if err != nil && x.again && errors.Is(err, unix.EINVAL) {
			x.again = false
			later = append(later, x)
			continue
		}
		if err != nil {
			return err
		}
	}
	if later != nil {
		return c.setAll(later)
	}
	return nil
}

func (c *Cgroup) set(s setting) error {
	dir := c.unified()
	if s.controller != "" {
		dir = c.dir(s.controller)
	}
	if dir == "" {
		if s.optional {
			return nil
		}
		return fault.Hint(fmt.Errorf("set %s to %s: the controller %s is not mounted", s.file, s.value, s.controller),
			"mkdir -p %s/%s && mount -t cgroup -o %[2]s none %[1]s/%[2]s", root, s.controller)
	}
	err := writeFile(dir, s.file, s.value)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		if errors.Is(err, unix.EBUSY) && strings.HasPrefix(s.file, "memory.") {
			return fault.Hint(err, "the container uses more than that already")
		}
		return err
	}
	switch s.file { // files with a second name
	case "blkio.weight":
		return writeFile(dir, "blkio.bfq.weight", s.value)
	case "blkio.weight_device":
		return writeFile(dir, "blkio.bfq.weight_device", s.value)
	case "io.bfq.weight":
		dev, w, ok := strings.Cut(s.value, " ")
		if !ok {
			dev, w = "default", dev
		}
		n, _ := strconv.ParseUint(w, 10, 64)
		s.file, s.value = "io.weight", dev+" "+utoa(ioWeight(n))
		if err = writeFile(dir, s.file, s.value); err == nil || !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if s.optional {
		return nil
	}
	if s.controller == "" {
		name, _, _ := strings.Cut(s.file, ".")
		return c.missing(name, err)
	}
	return err
}

func (c *Cgroup) checkUsage(limit int64) error {
	dir, file := c.unified(), "memory.current"
	if !c.V2() {
		dir, file = c.dir("memory"), "memory.usage_in_bytes"
	}
	b, err := readFile(dir, file)
	if err != nil {
		return err
	}
	if n, ok := number(b); ok && n > uint64(limit) {
		return fmt.Errorf("linux.resources.memory.limit %d is below the %d bytes in use (checkBeforeUpdate)", limit, n)
	}
	return nil
}

// counted are the controllers that Stats reads; enabled where there are, so that every container can be measured.
var counted = [...]string{"memory", "cpu", "pids", "io", "cpuset"}

// enable makes controllers reach the container's v2 cgroup: each directory above it has to pass them on in
// cgroup.subtree_control.
func (c *Cgroup) enable(r *specs.LinuxResources) error {
	var need []string
	if r != nil {
		s, err := settingsV2(r)
		if err != nil {
			return err
		}
		for _, x := range s {
			name, _, _ := strings.Cut(x.file, ".")
			if !x.optional && name != "cgroup" && !contains(need, name) {
				need = append(need, name)
			}
		}
	}
	want := need
	if c.V2() {
		for _, k := range counted {
			if !contains(want, k) {
				want = append(want, k)
			}
		}
	}
	dir := c.unified()
	have, err := readFile(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	if lacking(string(have), want) == nil {
		return nil
	}
	var refused error
	for _, up := range c.above(dir) {
		on, err := readFile(up, "cgroup.subtree_control")
		if err != nil {
			return err
		}
		missing := lacking(string(on), want)
		if missing == nil {
			continue
		}
		offered, err := readFile(up, "cgroup.controllers")
		if err != nil {
			return err
		}
		for _, k := range missing {
			if hasField(string(offered), k) {
				// One by one: a write with several controllers is all or nothing.
				if err := writeFile(up, "cgroup.subtree_control", "+"+k); err != nil && contains(need, k) && refused == nil {
					refused = err
				}
			}
		}
	}
	if have, err = readFile(dir, "cgroup.controllers"); err != nil {
		return err
	}
	if l := lacking(string(have), need); l != nil {
		return c.missing(l[0], refused)
	}
	return nil
}

// above lists the directories from the top of the mounted hierarchy down to dir's parent.
func (c *Cgroup) above(dir string) []string {
	top := root
	for i := range c.paths {
		if c.paths[i].Controller == "" && c.paths[i].mount != "" {
			top = c.paths[i].mount
		}
	}
	var list []string
	for d := filepath.Dir(dir); len(d) >= len(top) && strings.HasPrefix(d, top); d = filepath.Dir(d) {
		list = append([]string{d}, list...)
	}
	return list
}

// missing explains why controller does not reach the container's v2 cgroup; cause may be nil.
func (c *Cgroup) missing(controller string, cause error) error {
	dir := c.unified()
	for _, up := range c.above(dir) {
		if b, err := readFile(up, "cgroup.controllers"); err == nil && !hasField(string(b), controller) {
			err := fmt.Errorf("cgroup v2 controller %s is missing in %s", controller, up)
			return fault.Hint(err, "cat /proc/cgroups; a controller that a v1 hierarchy holds, or that the kernel or a cgroup above does not offer, cannot limit this container")
		}
		if b, err := readFile(up, "cgroup.subtree_control"); err == nil && !hasField(string(b), controller) {
			err := fmt.Errorf("cgroup v2 controller %s is not enabled in %s/cgroup.subtree_control", controller, up)
			if cause != nil {
				err = fmt.Errorf("%w: %w", err, cause)
			}
			if errors.Is(cause, unix.EBUSY) {
				return fault.Hint(err, "%s holds processes itself, so it may not pass controllers on: move them into a cgroup below it, or choose another cgroupsPath", up)
			}
			return fault.Hint(err, "echo +%s > %s/cgroup.subtree_control", controller, up)
		}
	}
	if cause == nil {
		cause = errors.New("not enabled")
	}
	return fmt.Errorf("cgroup v2 controller %s in %s: %w", controller, dir, cause)
}

func lacking(fields string, want []string) []string {
	var l []string
	for _, k := range want {
		if !hasField(fields, k) {
			l = append(l, k)
		}
	}
	return l
}

func hasField(fields, name string) bool {
	for f := range strings.FieldsSeq(fields) {
		if f == name {
			return true
		}
	}
	return false
}

func contains(list []string, name string) bool {
	for _, e := range list {
		if e == name {
			return true
		}
	}
	return false
}

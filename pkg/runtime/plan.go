// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"io"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
)

// Plan prints the program that a bundle's init would execute, as text, one system call a line, or as one JSON
// object a line. Nothing is made or changed.
func (r *Runtime) Plan(w io.Writer, bundle string, asJSON bool) error {
	c, err := readConfig(bundle)
	if err != nil {
		return err
	}
	id := filepath.Base(c.bundle)
	if err := c.resolve(id); err != nil {
		return err
	}
	defer c.fds.close()
	if err := c.fds.start(Stdio{}, 0); err != nil {
		return err
	}
	f := &c.facts
	f.FirstFD = 3
	f.Report = c.fds.add(-1, false)
	for _, n := range c.spec.Linux.Namespaces {
		if n.Path != "" {
			f.Joins = append(f.Joins, compile.Join{Type: n.Type, Path: n.Path, FD: c.fds.add(-1, false)})
		}
	}
	g, err := c.findCgroup(id)
	if err != nil {
		return err
	}
	f.CgroupWait = !g.V2()
	if g.V2() {
		f.CgroupFD = c.fds.add(-1, false)
	}
	for i := range c.spec.Mounts {
		m := &c.spec.Mounts[i]
		bind, _, idmap, _ := compile.IsBind(m.Options)
		if bind && (idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0 || hasOwn(c.spec, specs.UserNamespace)) {
			f.Mounts[i].Tree = c.fds.add(-1, false)
		}
	}
	f.Start = c.fds.add(-1, false)
	if c.spec.Process.Terminal {
		f.Console = c.fds.add(-1, false)
	}
	f.FDs = len(c.fds.files)
	result, err := compile.Init(c.spec, f)
	if err != nil {
		return err
	}
	for _, warning := range result.Warnings {
		r.warn(warning)
	}
	if asJSON {
		return result.Program.PrintJSON(w)
	}
	return result.Program.Print(w)
}

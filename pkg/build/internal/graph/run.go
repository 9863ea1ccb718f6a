// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// run adds a RUN.
func (b *builder) run(ctx context.Context, s *stage, i int, c *instructions.RunCommand, where []parser.Range, at place) error {
	for _, f := range c.FlagsUsed {
		if !slices.Contains([]string{"mount", "network", "security"}, f) {
			return fmt.Errorf("--%s is not supported", f)
		}
	}
	if sec := instructions.GetSecurity(c); sec != instructions.SecuritySandbox {
		return fmt.Errorf("--security=%s is not supported", sec)
	}
	do := &Run{Env: slices.Clone(s.env), User: s.config.Config.User, Dir: s.config.Config.WorkingDir}
	op := &Op{Text: fmt.Sprint(c), Do: do}
	var err error
	if do.Network, err = b.network(c); err != nil {
		return err
	}
	if do.Args, do.Script, err = s.runArgs(c); err != nil {
		return err
	}
	if len(do.Args) == 0 {
		return errors.New("no command")
	}
	for _, m := range instructions.GetMounts(c) {
		if err := b.mount(ctx, s, i, op, do, m, where); err != nil {
			return err
		}
	}
	for _, p := range b.Proxy {
		name, _, _ := strings.Cut(p, "=")
		if _, ok := getenv(s.env, name); !ok {
			if v, given := b.Args[name]; given {
				p = name + "=" + v
			}
			do.Proxy = append(do.Proxy, p)
		}
	}
	b.change(s, at, "RUN "+s.withArgs(do.Args), op)
	return nil
}

func (b *builder) network(c *instructions.RunCommand) (string, error) {
	n := instructions.GetNetwork(c)
	if n == instructions.NetworkHost && b.Network != "host" && !b.HostNet {
		return "", fault.Hint(errors.New("--network=host is not allowed"), "allow it: --allow network.host")
	}
	if n == instructions.NetworkDefault {
		n = b.Network
	}
	return n, nil
}

// runArgs is the argument list, with here-documents where they belong.
func (s *stage) runArgs(c *instructions.RunCommand) ([]string, *Inline, error) {
	args := c.CmdLine
	if len(c.Files) > 0 {
		if len(args) != 1 || !c.PrependShell {
			return nil, nil, errors.New("here-documents want the shell form")
		}
		h := parser.MustParseHeredoc(args[0])
		switch {
		case h == nil: // a command with here-documents: the shell reads them
			var t strings.Builder
			t.WriteString(args[0])
			for _, f := range c.Files {
				t.WriteString("\n" + f.Data + f.Name)
			}
			args = []string{t.String()}
		default:
			data := c.Files[0].Data
			if c.Files[0].Chomp {
				data = parser.ChompHeredocContent(data)
			}
			if strings.HasPrefix(data, "#!") {
				name := path.Base(c.Files[0].Name)
				return []string{path.Join(ScriptDir, name)}, &Inline{Name: name, Data: data}, nil
			}
			args = []string{data}
		}
	}
	if c.PrependShell {
		return s.shell(args), nil, nil
	}
	return slices.Clone(args), nil, nil
}

// withArgs is a command as Docker's history has it: the ARGs that are in its environment come first.
func (s *stage) withArgs(args []string) string {
	var said []string
	for _, name := range s.args {
		if v, ok := getenv(s.env, name); ok {
			said = append(said, name+"="+v)
		}
	}
	if len(said) > 0 {
		said = append([]string{fmt.Sprintf("|%d", len(said))}, said...)
	}
	return strings.Join(append(said, args...), " ")
}

// mount adds one --mount.
func (b *builder) mount(ctx context.Context, s *stage, i int, op *Op, do *Run, m *instructions.Mount, where []parser.Range) error {
	out := Mount{Type: string(m.Type), Source: m.Source, ReadOnly: m.ReadOnly, ID: m.CacheID, Required: m.Required}
	if m.Target != "" {
		out.Target = s.abs(m.Target)
	}
	if m.Mode != nil {
		mode := uint32(*m.Mode)
		out.Mode = &mode
	}
	if m.UID != nil {
		out.UID = uint32(*m.UID)
	}
	if m.GID != nil {
		out.GID = uint32(*m.GID)
	}
	fail := func(format string, a ...any) error {
		return fmt.Errorf("--mount=type=%s: "+format, append([]any{out.Type}, a...)...)
	}
	switch m.Type {
	case instructions.MountTypeBind:
		out.Source = path.Clean("/" + m.Source)
		if m.From == "" {
			out.Context = true
		} else {
			src, err := b.source(ctx, i, m.From, where, op.Text)
			if err != nil {
				return err
			}
			n := len(op.Sources)
			op.Sources = append(op.Sources, src)
			out.From = &n
		}
	case instructions.MountTypeCache:
		if m.From != "" || m.Source != "" {
			return fail("from and source are not supported")
		}
		if out.ID == "" {
			out.ID = out.Target
		}
		if out.Sharing = string(m.CacheSharing); out.Sharing == "" {
			out.Sharing = "shared"
		}
	case instructions.MountTypeTmpfs:
		out.Size = m.SizeLimit
	case instructions.MountTypeSecret:
		if out.ID == "" {
			out.ID = m.Source
		}
		if out.ID == "" {
			out.ID = path.Base(m.Target)
		}
		out.Source = ""
		if m.Env != nil {
			if out.Env = *m.Env; out.Env == "" {
				out.Env = out.ID
			}
		}
		if out.Target == "" && out.Env == "" {
			out.Target = "/run/secrets/" + path.Base(out.ID)
		}
	default:
		return fail("not supported")
	}
	if out.Target == "" && out.Env == "" {
		return fail("no target")
	}
	if out.Target == "/" {
		return fail("found target /, want a directory below it")
	}
	do.Mounts = append(do.Mounts, out)
	return nil
}

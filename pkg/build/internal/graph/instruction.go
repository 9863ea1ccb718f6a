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
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// apply adds one instruction to a stage. where is the place to blame: an ONBUILD of a base blames the FROM.
func (b *builder) apply(ctx context.Context, s *stage, i int, c instructions.Command, where []parser.Range, prefix string) error {
	text := prefix + fmt.Sprint(c)
	err := b.expand(s, c)
	if err == nil {
		at := place{first(where), last(where), prefix}
		cc := &s.config.Config
		switch c := c.(type) {
		case *instructions.EnvCommand:
			said := "ENV"
			for _, e := range c.Env {
				cc.Env = setenv(cc.Env, e.Key, e.Value)
				s.env = setenv(s.env, e.Key, e.Value)
				said += " " + e.String()
			}
			s.note(said)
		case *instructions.LabelCommand:
			said := "LABEL"
			cc.Labels = cloneMap(cc.Labels)
			for _, l := range c.Labels {
				cc.Labels[l.Key] = l.Value
				said += " " + l.String()
			}
			s.note(said)
		case *instructions.ArgCommand:
			err = b.arg(s, c)
		case *instructions.MaintainerCommand:
			s.config.Author = c.Maintainer
			s.note("MAINTAINER " + c.Maintainer)
		case *instructions.UserCommand:
			cc.User = c.User
			s.note("USER " + c.User)
		case *instructions.CmdCommand:
			cc.Cmd, s.cmdSet = s.command(c.ShellDependantCmdLine), true
			s.note(fmt.Sprintf("CMD %q", cc.Cmd))
		case *instructions.EntrypointCommand:
			cc.Entrypoint = s.command(c.ShellDependantCmdLine)
			if !s.cmdSet {
				cc.Cmd = nil
			}
			s.note(fmt.Sprintf("ENTRYPOINT %q", cc.Entrypoint))
		case *instructions.ShellCommand:
			s.config.Shell = slices.Clone(c.Shell)
			s.note(fmt.Sprintf("SHELL %v", c.Shell))
		case *instructions.HealthCheckCommand:
			s.config.Healthcheck = c.Health
			s.note(fmt.Sprintf("HEALTHCHECK %+v", *c.Health))
		case *instructions.ExposeCommand:
			err = b.expose(s, c)
		case *instructions.VolumeCommand:
			cc.Volumes = cloneMap(cc.Volumes)
			for _, v := range c.Volumes {
				if v == "" {
					err = errors.New("found an empty path")
				}
				cc.Volumes[v] = struct{}{}
			}
			s.note(fmt.Sprintf("VOLUME %v", c.Volumes))
		case *instructions.StopSignalCommand:
			if err = checkSignal(c.Signal); err == nil {
				cc.StopSignal = c.Signal
				s.note("STOPSIGNAL " + c.Signal)
			}
		case *instructions.OnbuildCommand:
			s.config.OnBuild = append(s.config.OnBuild, c.Expression)
			s.onbuild = append(s.onbuild, c.Expression)
		case *instructions.WorkdirCommand:
			b.workdir(s, c, at)
		case *instructions.CopyCommand:
			err = b.copy(ctx, s, i, c, where, at)
		case *instructions.AddCommand:
			err = b.addFiles(s, c, at)
		case *instructions.RunCommand:
			err = b.run(ctx, s, i, c, where, at)
		default:
			err = fmt.Errorf("%s: not supported", strings.ToUpper(c.Name()))
		}
	}
	if err != nil {
		return b.fail(where, text, err)
	}
	return nil
}

// place is where an op comes from.
type place struct {
	line, end int
	prefix    string // "ONBUILD " for a trigger
}

// expand replaces variables in what the language expands them in.
func (b *builder) expand(s *stage, c instructions.Command) error {
	env := shell.EnvsFromSlice(s.env)
	if _, isArg := c.(*instructions.ArgCommand); isArg {
		return nil // a default that is not used is not expanded: see arg
	}
	if e, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		if err := e.Expand(func(word string) (string, error) {
			w, _, err := b.lex.ProcessWord(word, env)
			return w, err
		}); err != nil {
			return err
		}
	}
	if e, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok {
		return e.ExpandRaw(func(word string) (string, error) {
			lex := shell.NewLex('\\')
			lex.SkipProcessQuotes = true
			w, _, err := lex.ProcessWord(word, env)
			return w, err
		})
	}
	return nil
}

// note adds an entry that changes no files to the history.
func (s *stage) note(by string) {
	s.history = append(s.history, History{History: ocispec.History{CreatedBy: by, EmptyLayer: true}})
}

// change puts an op on top of the stage.
func (b *builder) change(s *stage, at place, by string, o *Op) {
	o.Stage, o.Line, o.End = s.name, at.line, at.end
	o.Text = at.prefix + o.Text
	o.Parent = s.top
	s.top = b.add(o)
	s.history = append(s.history, History{History: ocispec.History{CreatedBy: by}, Op: o})
}

// command is an instruction's argument list, with the shell where it is in shell form.
func (s *stage) command(c instructions.ShellDependantCmdLine) []string {
	if c.PrependShell {
		return s.shell(c.CmdLine)
	}
	return slices.Clone(c.CmdLine)
}

func (s *stage) shell(words []string) []string {
	sh := s.config.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), strings.Join(words, " "))
}

// arg declares ARGs: the command line's value, else the default, else the global ARG's.
func (b *builder) arg(s *stage, c *instructions.ArgCommand) error {
	var said []string
	for _, a := range c.Args {
		v, ok := b.Args[a.Key]
		if !ok && a.Value != nil {
			var err error
			if v, _, err = b.lex.ProcessWord(*a.Value, shell.EnvsFromSlice(s.env)); err != nil {
				return err
			}
			ok = true
		}
		if !ok {
			v, ok = getenv(b.global, a.Key)
		}
		if !slices.Contains(s.args, a.Key) {
			s.args = append(s.args, a.Key)
		}
		if ok {
			s.env = setenv(s.env, a.Key, v)
			said = append(said, a.Key+"="+v)
		} else {
			said = append(said, a.Key)
		}
	}
	s.note("ARG " + strings.Join(said, " "))
	return nil
}

// workdir sets the directory and makes it.
func (b *builder) workdir(s *stage, c *instructions.WorkdirCommand, at place) {
	dir := s.abs(c.Path)
	s.config.Config.WorkingDir = dir
	if dir == "/" {
		s.note("WORKDIR /")
		return
	}
	b.change(s, at, "WORKDIR "+dir, &Op{Text: "WORKDIR " + dir, Do: &Mkdir{Path: dir, User: s.config.Config.User}})
}

// abs is p seen from the working directory, clean.
func (s *stage) abs(p string) string {
	if !path.IsAbs(p) {
		p = path.Join("/", s.config.Config.WorkingDir, p)
	}
	return path.Clean(p)
}

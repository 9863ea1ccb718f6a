// SPDX-License-Identifier: Apache-2.0

// Package graph makes of a Dockerfile the operations that build one of its stages. It is pure: it reads no
// file, runs nothing, and gets what it has to know about base images from a function. BuildKit's packages
// parse the Dockerfile (bytes to nodes, nodes to instructions, words to expanded words); what an instruction
// means is here.
//
// An instruction that changes files becomes an [Op]; one that only changes the image's config is applied at
// once, so that the config of the result is known before anything runs. Stages that the target does not
// need are never looked at.
package graph

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// MaxBytes bounds a Dockerfile.
const MaxBytes = 4 << 20

// A File is a parsed Dockerfile. Building a graph of it changes it, so it serves for one graph.
type File struct {
	Name     string   // what messages call it
	Warnings []string // of BuildKit's build checks that work on the text alone, as NAME:LINE: RULE: message
	escape   rune
	stages   []instructions.Stage
	args     []instructions.ArgCommand // before the first FROM
}

// An Error is a failure with its place in the Dockerfile.
type Error struct {
	File string
	Line int    // the instruction's first line, from 1
	Text string // the instruction, shortened; may be empty
	Err  error
}

func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s:%d: %s: %v", e.File, e.Line, e.Text, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Parse parses a Dockerfile. Errors are *Error.
func Parse(name string, src []byte) (*File, error) {
	f := &File{Name: name}
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", name, len(src), MaxBytes)
	}
	if err := f.directives(src); err != nil {
		return nil, err
	}
	check, _, where, _ := parser.ParseDirective("check", src)
	config, err := linter.ParseLintOptions(check)
	if err != nil {
		return nil, &Error{File: name, Line: first(where), Err: fmt.Errorf("# check=%s: %w", check, err)}
	}
	config.Warn = func(rule, _, _, msg string, where []parser.Range) {
		f.Warnings = append(f.Warnings, fmt.Sprintf("%s:%d: %s: %s", name, first(where), rule, msg))
	}
	lint := linter.New(config)
	res, err := parser.Parse(bytes.NewReader(src))
	if err != nil {
		return nil, located(name, err)
	}
	f.escape = res.EscapeToken
	if f.stages, f.args, err = instructions.Parse(res.AST, lint); err != nil {
		return nil, located(name, err)
	}
	if len(f.stages) == 0 {
		return nil, &Error{File: name, Line: 1, Err: errors.New("no FROM: nothing to build")}
	}
	if err := lint.Error(); err != nil { // # check=error=true
		return nil, located(name, err)
	}
	return f, nil
}

// plainFrontend are the values of "# syntax=" that name the language this package reads.
var plainFrontend = regexp.MustCompile(`^(docker\.io/)?docker/dockerfile(:1([.-].*)?)?(@sha256:[0-9a-f]{64})?$|^dockerfile\.v0$`)

// directives refuses a "# syntax=" that asks for another language: no foreign code takes part in a build.
func (f *File) directives(src []byte) error {
	ref, cmd, where, ok := parser.DetectSyntax(src)
	if ok && !plainFrontend.MatchString(ref) {
		return &Error{File: f.Name, Line: first(where),
			Err: fmt.Errorf("syntax=%s: found another language than docker/dockerfile:1, want that or no such line", strings.TrimSpace(cmd))}
	}
	return nil
}

// located makes an error of BuildKit's packages an *Error; the place that they carry is taken off the text.
func located(name string, err error) error {
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 {
		return &Error{File: name, Line: first(at.Locations[0]), Err: plain{at.Error(), err}}
	}
	return &Error{File: name, Line: 1, Err: err}
}

// plain is an error under another text.
type plain struct {
	text string
	err  error
}

func (p plain) Error() string { return p.text }
func (p plain) Unwrap() error { return p.err }

// first is the first line of a place; BuildKit counts lines from 1, or gives no place at all.
func first(r []parser.Range) int {
	if len(r) == 0 {
		return 1
	}
	return max(1, r[0].Start.Line)
}

func last(r []parser.Range) int {
	if len(r) == 0 {
		return 1
	}
	return max(1, r[len(r)-1].End.Line)
}

// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/ctr-tools/ctr/pkg/build/internal/exec"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/layer"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// A source is the build context: a directory that all paths of COPY and ADD stay in.
type source struct {
	root *rootfd.Root
	tree *exec.Tree
	temp *session // where a context from an archive was unpacked; nil: the user's own directory
}

// open opens the context.
func (b *builder) open(ctx context.Context) (*source, error) {
	switch {
	case strings.Contains(b.Context, "://") || strings.HasPrefix(b.Context, "git@"):
		return nil, fault.Hint(fault.Usagef("context %s: remote contexts are not supported", b.Context), "clone or download it, and give the directory")
	case b.Context != "-":
		root, err := rootfd.Open(b.Context)
		if err != nil {
			return nil, fmt.Errorf("context: %w", err)
		}
		return &source{root: root}, nil
	}
	s, err := newSession(b.Root)
	if err != nil {
		return nil, err
	}
	c := &source{temp: s}
	if err := os.Mkdir(s.path("context"), 0o700); err != nil {
		c.close()
		return nil, err
	}
	if c.root, err = rootfd.Open(s.path("context")); err != nil {
		c.close()
		return nil, err
	}
	opts := layer.Options{Form: layer.Plain{}, Literal: true, Rootless: os.Geteuid() != 0, Owner: &layer.Owner{}}
	if _, err := layer.Apply(ctx, b.Stdin, c.root, opts); err != nil {
		c.close()
		return nil, fmt.Errorf("context from stdin: %w", err)
	}
	return c, nil
}

// with adds the patterns of an ignore file.
func (s *source) with(ignore []byte) (*source, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(ignore))
	if err != nil {
		return s, fmt.Errorf(".dockerignore: %w", err)
	}
	var m *patternmatcher.PatternMatcher
	if len(patterns) > 0 {
		if m, err = patternmatcher.New(patterns); err != nil {
			return s, fmt.Errorf(".dockerignore: %w", err)
		}
	}
	s.tree = exec.ContextTree(s.root, m)
	return s, nil
}

func (s *source) close() {
	if s.root != nil {
		s.root.Close()
	}
	if s.temp != nil {
		s.temp.close()
	}
}

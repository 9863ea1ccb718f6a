// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// copy adds a COPY.
func (b *builder) copy(ctx context.Context, s *stage, i int, c *instructions.CopyCommand, where []parser.Range, at place) error {
	do := &Copy{Context: c.From == "", Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Parents: c.Parents, Exclude: c.ExcludePatterns}
	op := &Op{Text: fmt.Sprint(c), Do: do}
	if c.From != "" {
		if strings.Contains(c.From, "$") {
			return fault.Hint(fmt.Errorf("--from=%s: variables are not expanded here", c.From), "FROM %s AS NAME above, then --from=NAME", c.From)
		}
		src, err := b.source(ctx, i, c.From, where, op.Text)
		if err != nil {
			return err
		}
		op.Sources = []*Op{src}
	}
	for _, p := range c.SourcePaths {
		if isRemote(p) {
			return fault.Hint(fmt.Errorf("found the URL %s, want a path", p), "ADD takes URLs in other builders; fetch it in a RUN step")
		}
	}
	if err := s.sources(do, c.SourcesAndDest); err != nil {
		return err
	}
	b.change(s, at, spell("COPY", do, c.SourcesAndDest), op)
	return nil
}

// addFiles adds an ADD of local files.
func (b *builder) addFiles(s *stage, c *instructions.AddCommand, at place) error {
	for _, p := range c.SourcePaths {
		if isRemote(p) {
			return fault.Hint(fmt.Errorf("%s: sources other than the build context are not supported", p),
				"download it in a RUN step, or put it into the context")
		}
	}
	if c.KeepGitDir != nil {
		return errors.New("--keep-git-dir: git sources are not supported")
	}
	if c.Checksum != "" {
		return errors.New("--checksum: want a URL among the sources, and those are not supported")
	}
	do := &Copy{Context: true, Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Exclude: c.ExcludePatterns,
		Extract: c.Unpack == nil || *c.Unpack}
	if err := s.sources(do, c.SourcesAndDest); err != nil {
		return err
	}
	b.change(s, at, spell("ADD", do, c.SourcesAndDest), &Op{Text: fmt.Sprint(c), Do: do})
	return nil
}

// remote is what ADD takes for a URL or a git repository.
var remote = regexp.MustCompile(`^(https?|git|ssh)://|^git@[^/]+:`)

func isRemote(p string) bool { return remote.MatchString(p) }

// sources fills in what COPY and ADD have in common and checks it.
func (s *stage) sources(do *Copy, in instructions.SourcesAndDest) error {
	for _, p := range in.SourcePaths {
		if do.Parents && strings.Contains(p, "**") {
			return fmt.Errorf("%s: ** is not supported with --parents", p)
		}
		// The part before a pivot point, "/./", is where --parents begins: it outlives the cleaning.
		if before, after, ok := strings.Cut(p, "/./"); ok && do.Parents {
			p = path.Clean("/"+before) + "/." + path.Clean("/"+after)
			do.Paths = append(do.Paths, strings.TrimPrefix(p, "//"))
			continue
		}
		do.Paths = append(do.Paths, path.Clean("/"+p))
	}
	for _, f := range in.SourceContents {
		do.Inline = append(do.Inline, Inline{Name: path.Base(f.Path), Data: f.Data})
	}
	slash := strings.HasSuffix(in.DestPath, "/") || in.DestPath == "." || in.DestPath == ".." || in.DestPath == "" ||
		strings.HasSuffix(in.DestPath, "/.") || strings.HasSuffix(in.DestPath, "/..")
	do.Dest = s.abs(in.DestPath)
	if slash && do.Dest != "/" {
		do.Dest += "/"
	}
	if len(in.SourcePaths)+len(in.SourceContents) > 1 && !slash {
		return fmt.Errorf("found destination %q for %d sources, want a directory with a slash at the end", in.DestPath, len(in.SourcePaths)+len(in.SourceContents))
	}
	if do.Chmod != "" {
		if n, err := strconv.ParseUint(do.Chmod, 8, 32); err != nil || n > 0o7777 {
			return fmt.Errorf("--chmod=%s: want an octal number up to 7777", do.Chmod)
		}
	}
	if do.Link && do.Chown != "" && strings.Trim(do.Chown, "0123456789:") != "" {
		return fmt.Errorf("--chown=%s: want numbers with --link, which looks at no passwd file", do.Chown)
	}
	return nil
}

// spell is the history entry, as BuildKit writes it.
func spell(verb string, do *Copy, in instructions.SourcesAndDest) string {
	if do.Parents {
		verb += " --parents"
	}
	if do.Chown != "" {
		verb += " --chown=" + do.Chown
	}
	if do.Chmod != "" {
		verb += " --chmod=" + do.Chmod
	}
	for _, p := range in.SourcePaths {
		verb += " " + p
	}
	for _, f := range in.SourceContents {
		verb += " <<" + f.Path
	}
	return verb + " " + in.DestPath
}

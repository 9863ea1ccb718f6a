// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strings"

	"github.com/ctr-tools/ctr/pkg/project"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// Script prints the plan as a POSIX shell script that does the same, one step after the other, from any
// directory. It stops at the first failure and may be run again.
func (p *Plan) Script() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# Project %s: %s.\n", p.Project, p.Title)
	if p.Empty() {
		b.WriteString("# Nothing to do.\n")
		return b.String()
	}
	dir := project.Dir(p.Root, p.Project)
	b.WriteString("set -eu\n")
	fmt.Fprintf(&b, "export CTR_ROOT=%s CTR_RUN=%s\n", toolkit.QuoteWord(p.Root), toolkit.QuoteWord(p.Run))
	fmt.Fprintf(&b, "project=$CTR_ROOT%s\n", toolkit.QuoteWord(strings.TrimPrefix(dir, p.Root)))
	about := ""
	for _, s := range p.Steps {
		if s.About != about || s.Why != "" {
			about = s.About
			b.WriteString("\n# " + oneLine(about))
			if s.Why != "" {
				b.WriteString(": " + oneLine(s.Why))
			}
			b.WriteString("\n")
		}
		words := make([]string, len(s.Argv))
		for i, w := range s.Argv {
			words[i] = scriptWord(dir, w)
		}
		line := p.unlessDone(s) + wrap(words)
		switch {
		case s.Want != "":
			fmt.Fprintf(&b, "got=$(%s)\n[ \"$got\" = %s ] || { echo %s\" exited with status $got\" >&2; exit 1; }\n",
				line, toolkit.QuoteWord(s.Want), toolkit.QuoteWord(s.About))
		case s.Stdin != "":
			end := heredocEnd(s.Stdin)
			if s.quietInScript() {
				line += " >/dev/null"
			}
			fmt.Fprintf(&b, "%s <<'%s'\n%s", line, end, s.Stdin)
			if !strings.HasSuffix(s.Stdin, "\n") {
				b.WriteString("\n")
			}
			b.WriteString(end + "\n")
		default:
			b.WriteString(line)
			if s.quietInScript() {
				b.WriteString(" >/dev/null")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// unlessDone is what stands before a step that fails where it was done: a script that stopped half-way is run again.
func (p *Plan) unlessDone(s Step) string {
	dir := project.Dir(p.Root, p.Project)
	switch {
	case len(s.Argv) < 2 || s.Want != "":
	case s.Argv[0] == "ctr-fetch" && s.Argv[1] == "unpack":
		return "[ -e " + scriptWord(dir, project.BundleDir(p.Root, p.Project, s.About)) + "/config.json ] ||\n"
	case s.Argv[0] == "ctr-run" && s.Argv[1] == "supervise":
		return "ctr-run state " + toolkit.QuoteWord(s.About) + " >/dev/null 2>&1 ||\n"
	}
	return ""
}

// quietInScript says whether the command's answer on stdout is of no use to whoever runs the script.
func (s Step) quietInScript() bool {
	switch s.Argv[0] {
	case "ctr-fetch", "ctr-build", "ctr-net", "ctr-vol", "ctr-run":
		return len(s.Argv) > 1 && s.Argv[1] != "unpack" && s.Argv[1] != "attach" && s.Argv[1] != "detach"
	}
	return false
}

// scriptWord quotes a word; what is below the project's directory is written with the variable.
func scriptWord(dir, w string) string {
	if w == dir {
		return `"$project"`
	}
	if rest, ok := strings.CutPrefix(w, dir+"/"); ok {
		return `"$project"/` + toolkit.QuoteWord(rest)
	}
	return toolkit.QuoteWord(w)
}

// wrap joins words to lines of at most 110 columns where it can, an option with its value.
func wrap(words []string) string {
	var b strings.Builder
	col := 0
	for i := 0; i < len(words); i++ {
		w := words[i]
		if strings.HasPrefix(w, "--") && i+1 < len(words) && !strings.HasPrefix(words[i+1], "--") {
			i++
			w += " " + words[i]
		}
		switch {
		case b.Len() == 0:
		case col+1+len(w) > 108:
			b.WriteString(" \\\n\t")
			col = 8
		default:
			b.WriteString(" ")
			col++
		}
		b.WriteString(w)
		col += len(w)
	}
	return b.String()
}

// heredocEnd is a line that does not occur in text.
func heredocEnd(text string) string {
	end := "EOF"
	for strings.Contains("\n"+text+"\n", "\n"+end+"\n") {
		end += "F"
	}
	return end
}

// oneLine keeps a comment a comment whatever names it holds.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

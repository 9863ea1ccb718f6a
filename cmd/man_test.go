// SPDX-License-Identifier: Apache-2.0

package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

// global lists the options that every tool has; ctr-cli(7) documents them once.
var global = []string{"help", "version", "verbose", "quiet"}

func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../man/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pages(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../man/*.[157]")
	if err != nil || len(all) == 0 {
		t.Fatalf("man pages: %v %v", all, err)
	}
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	return all
}

func TestManLint(t *testing.T) {
	clitest.Need(t, "mandoc")
	for _, p := range pages(t) {
		out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", "../man/"+p).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s", out)
		}
	}
}

var order = []string{"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO", "STANDARDS"}

// TestManSections wants the sections in the order of the house; pages may have further ones between
// DESCRIPTION and ENVIRONMENT.
func TestManSections(t *testing.T) {
	for _, p := range pages(t) {
		last := -1
		for _, m := range regexp.MustCompile(`(?m)^\.Sh (.+)$`).FindAllStringSubmatch(page(t, p), -1) {
			i := slices.Index(order, strings.Trim(m[1], `"`))
			if i < 0 {
				continue
			}
			if i <= last {
				t.Errorf("%s: section %s after %s", p, m[1], order[last])
			}
			last = i
		}
		for _, want := range []string{"NAME", "DESCRIPTION", "SEE ALSO"} {
			if !strings.Contains(page(t, p), "\n.Sh "+want+"\n") {
				t.Errorf("%s: no section %s", p, want)
			}
		}
	}
}

// TestManReferences wants every .Xr to one of our pages to lead to a page that exists.
func TestManReferences(t *testing.T) {
	have := pages(t)
	for _, p := range have {
		for _, m := range regexp.MustCompile(`(?m)^\.Xr (ctr[a-z-]*) ([157])`).FindAllStringSubmatch(page(t, p), -1) {
			if !slices.Contains(have, m[1]+"."+m[2]) {
				t.Errorf("%s refers to %s(%s), which does not exist", p, m[1], m[2])
			}
		}
	}
}

var (
	helpFlag = regexp.MustCompile(`(?m)^\s+(?:-(\w), )?--([a-z0-9][a-z0-9-]*)`)
	helpVerb = regexp.MustCompile(`(?m)^  ([a-z][a-z-]+)\s`)
	manFlag  = regexp.MustCompile(`(?:Fl|,|\|) -([a-z0-9][a-z0-9-]*)`)
)

type verb struct{ name, help string }

// verbs reads a tool's command tree from its help.
func verbs(t *testing.T, tool string) []verb {
	t.Helper()
	help := func(args ...string) string {
		out, _, status := clitest.Tool(t, nil, append(append([]string{tool}, args...), "--help")...)
		if status != 0 {
			t.Fatalf("%s %v --help: exit status %d", tool, args, status)
		}
		return out
	}
	root := help()
	all := []verb{{"", root}}
	_, list, _ := strings.Cut(root, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range helpVerb.FindAllStringSubmatch(list, -1) {
		if m[1] != "help" && m[1] != "completion" {
			all = append(all, verb{m[1], help(m[1])})
		}
	}
	return all
}

// TestManFlags wants every verb and every option in the tool's page, and no other.
func TestManFlags(t *testing.T) {
	for _, tool := range tools {
		text := page(t, tool+".1")
		synopsis, _, _ := strings.Cut(text[max(0, strings.Index(text, "\n.Sh SYNOPSIS")):], "\n.Sh DESCRIPTION")
		documented := map[string]bool{}
		for _, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(line, ".It Fl") || strings.HasPrefix(line, ".It Xo Fl") {
				for _, m := range manFlag.FindAllStringSubmatch(line, -1) {
					documented[m[1]] = true
				}
			}
		}
		exist := map[string]bool{}
		for _, v := range verbs(t, tool) {
			if v.name != "" && !regexp.MustCompile(`\b(Cm|Ic) `+v.name+`\b`).MatchString(synopsis) {
				t.Errorf("%s.1: SYNOPSIS has no %s (want .Cm %s)", tool, v.name, v.name)
			}
			for _, m := range helpFlag.FindAllStringSubmatch(v.help, -1) {
				exist[m[2]] = true
				if !documented[m[2]] && !slices.Contains(global, m[2]) {
					t.Errorf("%s.1: %s %s has --%s, which has no .It Fl", tool, tool, v.name, m[2])
				}
			}
		}
		for f := range documented {
			if !exist[f] {
				t.Errorf("%s.1 documents --%s, which %s does not have", tool, f, tool)
			}
		}
	}
}

// TestManExamples runs every "$ " line of every EXAMPLES section and compares what it prints: "…" stands
// for anything. The examples of a page run in one directory with roots of their own and an image
// "busybox" in the default layout.
func TestManExamples(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "busybox")
	bin := clitest.Bin(t)
	base := t.TempDir()
	busybox := filepath.Join(base, "root")
	makeBusybox(t, busybox)
	for _, p := range pages(t) {
		examples := parseExamples(page(t, p))
		if len(examples) == 0 {
			if strings.HasSuffix(p, ".1") {
				t.Errorf("%s: no examples", p)
			}
			continue
		}
		t.Run(p, func(t *testing.T) { runExamples(t, bin, busybox, examples) })
	}
}

type example struct{ command, want string }

func parseExamples(text string) (all []example) {
	_, text, ok := strings.Cut(text, "\n.Sh EXAMPLES\n")
	if !ok {
		return nil
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	literal, skip := false, false
	for _, line := range strings.Split(text, "\n") {
		line = unescape.Replace(line)
		switch {
		case strings.HasPrefix(line, ".Bd"):
			literal, skip = true, true
		case strings.HasPrefix(line, ".Ed"):
			literal = false
		case !literal:
		case strings.HasPrefix(line, "$ "):
			all = append(all, example{command: line[2:]})
			skip = false
		case skip:
		case strings.HasPrefix(line, "> ") && all[len(all)-1].want == "":
			all[len(all)-1].command += "\n" + line[2:]
		default:
			all[len(all)-1].want += line + "\n"
		}
	}
	return all
}

var unescape = strings.NewReplacer(`\&`, "", `\-`, "-", `\e`, `\`, `\(el`, "…", `\[u2026]`, "…", `\(dq`, `"`, `\(aq`, "'")

func makeBusybox(t *testing.T, root string) {
	t.Helper()
	host, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	context := filepath.Join(t.TempDir(), "base")
	if out, err := exec.Command("cp", "-r", "../examples/guestbook/base", context).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("cp", host, filepath.Join(context, "busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, stderr, status := clitest.Tool(t, []string{"CTR_ROOT=" + root, "CTR_RUN=" + root + "-run"}, "ctr-build", "-q", "-t", "busybox", context)
	if status != 0 {
		t.Fatalf("build busybox: exit status %d: %s", status, stderr)
	}
}

func runExamples(t *testing.T, bin, busybox string, examples []example) {
	dir := t.TempDir()
	root, run := filepath.Join(dir, "lib"), filepath.Join(dir, "run")
	work := filepath.Join(dir, "work")
	if out, err := exec.Command("cp", "-a", busybox, root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, e := range examples {
		script.WriteString("{\n" + e.command + "\n} </dev/null\nprintf '\\n@@%s\\n' $?\n")
	}
	cmd := exec.Command("sh", "-c", script.String())
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CTR_ROOT="+root, "CTR_RUN="+run, "HOME="+work,
		"SOURCE="+clitest.Source())
	out, err := cmd.CombinedOutput()
	rest := string(out)
	for _, e := range examples {
		got, tail, ok := strings.Cut(rest, "\n@@")
		if !ok {
			t.Fatalf("$ %s\ndid not end: %v\n%s", e.command, err, rest)
		}
		status, tail, _ := strings.Cut(tail, "\n")
		rest = tail
		// An example that shows an error may fail; any other must not.
		if status != "0" && !strings.Contains(e.want, "ctr-") {
			t.Errorf("$ %s\nexit status %s\n%s", e.command, status, got)
		}
		if !matches(e.want, got) {
			t.Errorf("$ %s\nprints\n%s\nthe page says\n%s", e.command, got, e.want)
		}
	}
}

func matches(want, got string) bool {
	words := func(s string) string {
		var lines []string
		for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
			lines = append(lines, strings.Join(strings.Fields(l), " ")) // columns may be wider than the page's
		}
		return strings.Join(lines, "\n")
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(words(want)), "…", "(?s:.*)")
	return regexp.MustCompile("^" + pattern + "$").MatchString(words(got))
}

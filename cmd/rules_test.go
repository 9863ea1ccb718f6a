// SPDX-License-Identifier: Apache-2.0

package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// banned lists calls that are never right in this tree, with the reason. A file that has to make one is
// listed after it, with its own.
var banned = []struct {
	call   string
	reason string
	except map[string]string
}{
	{"os.Create", "follows links and leaves half a file: atomicfile.Create or rootfd (CVE-2024-45310)", nil},
	{"os.Exit", "skips deferred undo: return an error, cli.Main exits", map[string]string{
		"pkg/cli/cli.go":                 "the one place",
		"examples/guestbook/web/main.go": "an application, not one of the tools",
	}},
	{"filepath.EvalSymlinks", "a check that the use does not see: open by handle (rootfd)", nil},
	{"syscall.StartProcess", "probes pidfd with an extra fork: syscall.ForkExec", nil},
	{"log.Fatal", "exits without undo: return an error", map[string]string{
		"examples/guestbook/web/main.go": "an application, not one of the tools",
	}},
}

func TestBannedCalls(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "out" || d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, b := range banned {
				if x.Name+"."+sel.Sel.Name == b.call && b.except[strings.TrimPrefix(path, "../")] == "" {
					t.Errorf("%s: %s: %s", fset.Position(call.Pos()), b.call, b.reason)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
)

func tool(err error) *cobra.Command {
	root := cli.Command("ctr-x", "an example")
	root.AddCommand(&cobra.Command{Use: "do", Short: "do it", Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		fmt.Fprintln(c.OutOrStdout(), "answer")
		return err
	}})
	return root
}

func TestStatusAndLines(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		err    error
		status int
		stderr string
	}{
		{"done", []string{"do"}, nil, 0, ""},
		{"failed", []string{"do"}, errors.New("no luck"), 1, "ctr-x: no luck\n"},
		{"not found, with hint", []string{"do"}, fault.Hint(fmt.Errorf("image a: %w", fs.ErrNotExist), "ctr-fetch %s", "a"), 3,
			"ctr-x: image a: file does not exist\nctr-x: hint: ctr-fetch a\n"},
		{"exists", []string{"do"}, fs.ErrExist, 4, "ctr-x: file already exists\n"},
		{"busy", []string{"do"}, fault.As(fault.ErrBusy, errors.New("volume a: in use by b")), 4, "ctr-x: volume a: in use by b\n"},
		{"not permitted", []string{"do"}, fs.ErrPermission, 5, "ctr-x: permission denied\n"},
		{"unverified", []string{"do"}, fault.As(fault.ErrUnverified, errors.New("blob")), 6, "ctr-x: blob\n"},
		{"try again", []string{"do"}, fault.As(fault.ErrTryAgain, errors.New("busy")), 75, "ctr-x: busy\n"},
		{"passed through", []string{"do"}, fault.Exit{Status: 42}, 42, ""},
		{"a sibling's words stand", []string{"do"}, errors.New("ctr-y: image b: not there"), 1, "ctr-y: image b: not there\n"},
		{"escapes are quoted", []string{"do"}, errors.New("name \x1b[31mred"), 1, "ctr-x: name \\x1b[31mred\n"},
		{"no such option", []string{"do", "--nope"}, nil, 2, "ctr-x: unknown flag: --nope\nctr-x: hint: ctr-x do --help\n"},
		{"too many operands", []string{"do", "a", "b"}, nil, 2, "ctr-x: accepts at most 1 arg(s), received 2\nctr-x: hint: ctr-x do --help\n"},
		{"no such verb", []string{"dp"}, nil, 2, "ctr-x: no verb \"dp\"\nctr-x: hint: ctr-x --help\nctr-x: hint: did you mean ctr-x do?\n"},
		{"no verb", nil, nil, 2, "ctr-x: a verb is wanted\nctr-x: hint: ctr-x --help\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, err bytes.Buffer
			got := cli.Run(tool(c.err), c.args, strings.NewReader(""), &out, &err)
			if got != c.status || err.String() != c.stderr {
				t.Errorf("got %d %q, want %d %q", got, err.String(), c.status, c.stderr)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for arg, want := range map[string]string{"--help": "The manual: man ctr-x", "--version": "ctr-x version "} {
		var out, err bytes.Buffer
		if status := cli.Run(tool(nil), []string{arg}, nil, &out, &err); status != 0 || !strings.Contains(out.String(), want) || err.Len() > 0 {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want 0 and %q on stdout", arg, status, out.String(), err.String(), want)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := cli.Table(&b, []string{"NAME", "SIZE"}, [][]string{{"a", "1"}, {"longer", "2\x1b"}}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME    SIZE\na       1\nlonger  2\\x1b\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

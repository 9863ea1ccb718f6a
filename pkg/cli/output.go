// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// FormatFlag adds --format=text|json to a command.
func FormatFlag(c *cobra.Command) *string {
	return c.Flags().String("format", "table", "`FORMAT`: table or json (one object a line)")
}

// CheckFormat refuses a --format that is none.
func CheckFormat(format string) error {
	if format != "table" && format != "json" {
		return fault.Usagef("--format=%s: want table or json", format)
	}
	return nil
}

// JSONLine prints v as one line of JSON, the machine output of every listing verb.
func JSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Table prints rows under a header, columns aligned; cells are made printable.
func Table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(cells []string) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, printable(c))
		}
		fmt.Fprintln(t)
	}
	line(header)
	for _, r := range rows {
		line(r)
	}
	return t.Flush()
}

// Verbose says whether -v was given, Quiet whether -q was.
func Verbose(c *cobra.Command) bool { b, _ := c.Flags().GetBool("verbose"); return b }

// Quiet says whether -q was given.
func Quiet(c *cobra.Command) bool { b, _ := c.Flags().GetBool("quiet"); return b }

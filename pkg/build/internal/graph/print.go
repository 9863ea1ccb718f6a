// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Print writes the graph for people: a line for each op with its number, place, definition (shortened),
// inputs and instruction.
func (g *Graph) Print(w io.Writer) error {
	for _, o := range g.Ops {
		var in []string
		for _, i := range o.Inputs() {
			in = append(in, strconv.Itoa(i.ID))
		}
		from := strings.Join(in, ",")
		if from == "" {
			from = "-"
		}
		place := fmt.Sprintf("%s:%d", o.File, o.Line)
		if o.End > o.Line {
			place += fmt.Sprintf("-%d", o.End)
		}
		if _, err := fmt.Fprintf(w, "%3d  %-16s %s  <- %-4s %-10s %s\n", o.ID, place, o.Definition.Encoded()[:12], from, o.Stage, Short(o.Text)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "=> %d (%s)\n", g.Top.ID, g.Target)
	return err
}

// A Record is an op's machine-readable form.
type Record struct {
	ID         int             `json:"id"`
	Stage      string          `json:"stage"`
	File       string          `json:"file"`
	Line       int             `json:"line"`
	EndLine    int             `json:"endLine"`
	Text       string          `json:"text"`
	Inputs     []int           `json:"inputs"`
	Definition digest.Digest   `json:"definition"`
	Do         json.RawMessage `json:"do"`
}

// Record is the op as JSON has it.
func (o *Op) Record() Record {
	r := Record{o.ID, o.Stage, o.File, o.Line, o.End, o.Text, []int{}, o.Definition, Spell(o.Do)}
	for _, in := range o.Inputs() {
		r.Inputs = append(r.Inputs, in.ID)
	}
	return r
}

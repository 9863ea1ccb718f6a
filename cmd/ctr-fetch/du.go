// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/image"
)

// usageLine is one line of "du --format=json". Fields only grow.
type usageLine struct {
	Name   string        `json:"name"` // "" on the last line: what no name reaches
	Digest digest.Digest `json:"digest,omitempty"`
	Size   int64         `json:"size"`   // bytes of everything below the name
	Unique int64         `json:"unique"` // bytes that only this document has, whatever its names
}

func du() *cobra.Command {
	c := &cobra.Command{Use: "du [flags] [oci:DIR]", Short: "show the space that images take, shared and not", Args: atMostOneLayout}
	format := cli.FormatFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := cli.CheckFormat(*format); err != nil {
			return err
		}
		l, err := findLayout(rootOf(c), args)
		if err != nil {
			return err
		}
		entries, err := l.Entries()
		if err != nil {
			return err
		}
		sizes, _, err := l.Blobs()
		if err != nil {
			return err
		}
		users := map[digest.Digest]map[digest.Digest]bool{} // blob -> images that have it
		lines := make([]usageLine, len(entries))
		for i, e := range entries {
			lines[i] = usageLine{Name: e.Annotations[ocispec.AnnotationRefName], Digest: e.Digest}
			err := l.Walk(c.Context(), e, func(d ocispec.Descriptor, have bool) error {
				if have {
					lines[i].Size += sizes[d.Digest]
					if users[d.Digest] == nil {
						users[d.Digest] = map[digest.Digest]bool{}
					}
					users[d.Digest][e.Digest] = true
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		rest := usageLine{}
		for d, n := range sizes {
			switch len(users[d]) {
			case 0:
				rest.Size += n
				rest.Unique += n
			case 1:
				for i := range lines {
					if users[d][lines[i].Digest] {
						lines[i].Unique += n
					}
				}
			}
		}
		lines = append(lines, rest)
		var rows [][]string
		for _, u := range lines {
			if *format == "json" {
				if err := cli.JSONLine(c.OutOrStdout(), u); err != nil {
					return err
				}
				continue
			}
			name := image.Familiar(u.Name)
			if u.Digest == "" {
				name = "(nothing: gc removes it)"
			}
			rows = append(rows, []string{name, size(u.Size), size(u.Unique)})
		}
		if *format == "json" {
			return nil
		}
		return cli.Table(c.OutOrStdout(), []string{"NAME", "SIZE", "UNIQUE"}, rows)
	}
	return c
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/transfer"
)

// findImage finds an image on this machine.
func findImage(c *cobra.Command, root, arg string) (*layout.Layout, ocispec.Descriptor, error) {
	o, err := image.ParseOperand(arg)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	return transfer.OpenOperand(c.Context(), root, o)
}

// findLayout opens the layout that a verb works on: oci:DIR, or the default one, which is made where missing.
func findLayout(root string, args []string) (*layout.Layout, error) {
	if len(args) == 0 {
		return layout.Create(place.Images(root))
	}
	o, err := image.ParseOperand(args[0])
	if err != nil {
		return nil, err
	}
	if o.Kind != image.KindLayout || o.Name != "" || o.Digest != "" {
		return nil, fault.Usagef("%q: want oci:DIR", args[0])
	}
	return layout.Open(o.Path)
}

func atMostOneLayout(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%d operands, want at most one: oci:DIR", len(args))
	}
	return nil
}

func operands(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%d operands, want %s", len(args), what)
		}
		return nil
	}
}

func some(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("no operand, want %s", what)
		}
		return nil
	}
}

// rootOf is the value of the global --root.
func rootOf(c *cobra.Command) string {
	s, err := c.Flags().GetString("root")
	if err != nil {
		return place.Root()
	}
	return s
}

// gone ignores that something is not there.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "kMGTP"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n), -1
	for f >= 1000 && u < len(units)-1 {
		f /= 1000
		u++
	}
	return fmt.Sprintf("%.1f %cB", f, units[u])
}

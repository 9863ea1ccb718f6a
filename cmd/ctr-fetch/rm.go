// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
)

func usage(err error) error { return fault.As(fault.ErrUsage, err) }

func rm() *cobra.Command {
	return &cobra.Command{Use: "rm IMAGE…", Short: "remove names; gc then frees the space", Args: some("IMAGE…"),
		RunE: func(c *cobra.Command, args []string) error {
			for _, a := range args {
				if err := remove(c, a); err != nil {
					return err
				}
			}
			return nil
		}}
}

// remove takes away a name, or all entries of a digest. What is gone already is fine.
func remove(c *cobra.Command, arg string) error {
	o, err := image.ParseOperand(arg)
	if err != nil {
		return err
	}
	dir := o.Path
	switch o.Kind {
	case image.KindReference:
		dir = place.Images(rootOf(c))
	case image.KindLayout:
		if o.Name == "" && o.Digest == "" {
			return usage(fmt.Errorf("%s: want oci:DIR:NAME or oci:DIR@DIGEST", arg))
		}
	default:
		return usage(fmt.Errorf("%s: an archive, want an image in an image layout", arg))
	}
	l, err := layout.Open(dir)
	if err != nil {
		if o.Kind == image.KindReference {
			return gone(err)
		}
		return err
	}
	if o.Name == "" || o.Kind == image.KindLayout && o.Digest != "" {
		return gone(l.Remove(o.Digest))
	}
	if err := l.Untag(o.Name); gone(err) != nil || err == nil {
		return err
	}
	full, err := image.Normalize(o.Name)
	if err != nil {
		return nil
	}
	return gone(l.Untag(full))
}

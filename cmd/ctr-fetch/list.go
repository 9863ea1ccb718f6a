// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
)

// listed is one line of "list --format=json". Fields only grow.
type listed struct {
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Platforms []string      `json:"platforms"` // that are in the layout
	Size      int64         `json:"size"`      // bytes in the layout, everything below the document
	Error     string        `json:"error,omitempty"`
}

func list() *cobra.Command {
	c := &cobra.Command{Use: "list [flags] [oci:DIR]", Short: "list the images in an image layout", Aliases: []string{"ls"}, Args: atMostOneLayout}
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
		var rows [][]string
		for _, d := range entries {
			i := describe(c.Context(), l, d)
			if *format == "json" {
				if err := cli.JSONLine(c.OutOrStdout(), i); err != nil {
					return err
				}
				continue
			}
			note := strings.Join(i.Platforms, ",")
			if i.Error != "" {
				note = "damaged: " + i.Error
			}
			short := string(i.Digest)
			if len(short) > 19 {
				short = short[:19]
			}
			rows = append(rows, []string{image.Familiar(i.Name), short, size(i.Size), note})
		}
		if *format == "json" {
			return nil
		}
		return cli.Table(c.OutOrStdout(), []string{"NAME", "DIGEST", "SIZE", "PLATFORM"}, rows)
	}
	return c
}

// describe reads what there is to say about an entry. A damaged image is listed with what is wrong.
func describe(ctx context.Context, l *layout.Layout, d ocispec.Descriptor) listed {
	i := listed{Name: d.Annotations[ocispec.AnnotationRefName], Digest: d.Digest, MediaType: d.MediaType, Platforms: []string{}}
	err := l.Walk(ctx, d, func(d ocispec.Descriptor, have bool) error {
		if have {
			i.Size += d.Size
		}
		if !have || !descriptor.IsManifest(d.MediaType) || image.Attestation(d) {
			return nil
		}
		if d.Platform != nil {
			i.Platforms = append(i.Platforms, image.FormatPlatform(*d.Platform))
			return nil
		}
		img, err := image.Load(ctx, l, d, nil)
		if err != nil { // an artifact has no platform
			return nil
		}
		i.Platforms = append(i.Platforms, image.FormatPlatform(img.Platform()))
		return nil
	})
	if err != nil {
		i.Error = err.Error()
	}
	return i
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
)

// inspected is what inspect prints. Fields only grow.
type inspected struct {
	Name     string           `json:"name,omitempty"`
	Digest   digest.Digest    `json:"digest"` // of the manifest
	Index    digest.Digest    `json:"index,omitempty"`
	Platform ocispec.Platform `json:"platform"`
	Size     int64            `json:"size"` // bytes of config and layers
	Manifest ocispec.Manifest `json:"manifest"`
	Config   json.RawMessage  `json:"config"`
}

func inspect() *cobra.Command {
	c := &cobra.Command{Use: "inspect [flags] IMAGE…", Short: "print an image's manifest and config as JSON", Args: some("IMAGE…")}
	config := c.Flags().Bool("config", false, "print the config as it is stored")
	manifest := c.Flags().Bool("manifest", false, "print the manifest, or index, as it is stored")
	platform := c.Flags().String("platform", "", "`PLATFORM` of an index to show (default: this machine's)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *config && *manifest {
			return fault.Usagef("--config and --manifest exclude each other")
		}
		var p *ocispec.Platform
		if *platform != "" {
			q, err := image.ParsePlatform(*platform)
			if err != nil {
				return err
			}
			p = &q
		}
		for _, arg := range args {
			l, d, err := findImage(c, rootOf(c), arg)
			if err != nil {
				return err
			}
			if err := show(c, l, d, p, *config, *manifest); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func show(c *cobra.Command, l *layout.Layout, d ocispec.Descriptor, p *ocispec.Platform, config, manifest bool) error {
	out := c.OutOrStdout()
	if manifest && p == nil {
		data, err := l.ReadAll(c.Context(), d)
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	}
	img, err := image.Load(c.Context(), l, d, p)
	if err != nil {
		return err
	}
	if manifest {
		data, err := l.ReadAll(c.Context(), img.Descriptor)
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	}
	if config {
		_, err := out.Write(img.RawConfig)
		return err
	}
	i := inspected{Name: d.Annotations[ocispec.AnnotationRefName], Digest: img.Descriptor.Digest, Index: img.Index,
		Platform: img.Platform(), Size: img.Manifest.Config.Size, Manifest: img.Manifest, Config: img.RawConfig}
	for _, layer := range img.Manifest.Layers {
		i.Size += layer.Size
	}
	return cli.JSONLine(out, i)
}

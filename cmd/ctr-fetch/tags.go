// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/registry"
)

func tags() *cobra.Command {
	c := &cobra.Command{Use: "tags [flags] REPOSITORY", Short: "list the tags of a repository in a registry", Args: operands(1, "REPOSITORY")}
	insecure := c.Flags().Bool("insecure", false, "allow plain http and certificates that do not verify")
	c.RunE = func(c *cobra.Command, args []string) error {
		ref, err := image.ParseReference(args[0])
		if err != nil {
			return err
		}
		client := registry.NewClient(registry.Options{Insecure: *insecure, UserAgent: "ctr-fetch/" + cli.Version, Explain: explain(c)})
		repo, err := client.Repository(ref, false)
		if err != nil {
			return err
		}
		return repo.Tags(c.Context(), func(tag string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), tag)
			return err
		})
	}
	return c
}

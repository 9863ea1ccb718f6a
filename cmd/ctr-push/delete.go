// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/image"
)

func remove() *cobra.Command {
	c := &cobra.Command{Use: "delete [flags] REFERENCE…", Short: "delete tags, or manifests by digest, in a registry",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no operand, want REFERENCE…")
			}
			return nil
		}}
	insecure := c.Flags().Bool("insecure", false, "allow plain http and certificates that do not verify")
	c.RunE = func(c *cobra.Command, args []string) error {
		client := client(c, *insecure)
		for _, arg := range args {
			ref, err := image.ParseReference(arg)
			if err != nil {
				return err
			}
			repo, err := client.Repository(ref, true)
			if err != nil {
				return err
			}
			what := ref.Tag
			if ref.Digest != "" {
				what = string(ref.Digest)
			}
			if err := repo.Delete(c.Context(), what); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("delete %s: %w", arg, err)
			}
		}
		return nil
	}
	return c
}

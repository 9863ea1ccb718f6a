// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/runtime"
)

// newSpec is "ctr-run spec": a config.json to start from.
func newSpec() *cobra.Command {
	var dir string
	var rootless bool
	c := &cobra.Command{
		Use:   "spec [--bundle DIR] [--rootless]",
		Short: "write a config.json to start from",
	}
	c.Flags().StringVarP(&dir, "bundle", "b", ".", "write it into `DIR`")
	c.Flags().BoolVar(&rootless, "rootless", false, "for a user who is not root")
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		s := runtime.DefaultSpec()
		if rootless {
			runtime.MakeRootless(s, os.Geteuid(), os.Getegid())
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "\t")
		if err := e.Encode(s); err != nil {
			return err
		}
		path := filepath.Join(dir, bundle.ConfigFile)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already: %w", path, err)
		}
		if err != nil {
			return err
		}
		_, err = f.Write(b.Bytes())
		return errors.Join(err, f.Close())
	})
	return c
}

// newFeatures is "ctr-run features".
func newFeatures() *cobra.Command {
	return &cobra.Command{
		Use:   "features",
		Short: "print what this runtime can do as JSON (runtime-spec, Features)",
		RunE: verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
			e := json.NewEncoder(c.OutOrStdout())
			e.SetIndent("", "    ")
			return e.Encode(runtime.Features())
		}),
	}
}

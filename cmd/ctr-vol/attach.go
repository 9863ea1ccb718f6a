// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/volume"
)

func attach(store func() *volume.Store) *cobra.Command {
	var long, tmpfs []string
	var o volume.AttachOptions
	c := &cobra.Command{
		Use:   "attach [OPTION…] BUNDLE [SOURCE:DESTINATION[:OPTIONS]]…",
		Short: "mount volumes, directories of the host and tmpfs in a bundle",
		Long: `Mount volumes, directories of the host and tmpfs in a bundle. A SOURCE with a slash is a path of the host,
another one the name of a volume, which is made if it is missing; a DESTINATION alone is a volume without a name.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := bundle.Open(args[0])
			if err != nil {
				return err
			}
			var mounts []volume.Mount
			for _, form := range []struct {
				words []string
				parse func(string) (volume.Mount, error)
			}{{args[1:], volume.ParseShort}, {long, volume.ParseLong}, {tmpfs, volume.ParseTmpfs}} {
				for _, w := range form.words {
					m, err := form.parse(w)
					if err != nil {
						return err
					}
					mounts = append(mounts, m)
				}
			}
			if len(mounts) == 0 {
				return fault.Usagef("nothing to mount is named")
			}
			return store().Attach(c.Context(), b, mounts, o)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&long, "mount", nil, "`type=TYPE,src=SOURCE,dst=DESTINATION,…`: the long form")
	f.StringArrayVar(&tmpfs, "tmpfs", nil, "an empty file system in memory, `DESTINATION[:OPTIONS]`")
	f.BoolVar(&o.CreateHostPath, "create-host-path", false, "make missing directories of the host, owned by the caller")
	return c
}

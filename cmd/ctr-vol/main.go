// SPDX-License-Identifier: Apache-2.0

// Ctr-vol keeps named volumes and attaches volumes, binds and tmpfs to bundles. See ctr-vol(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/volume"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-vol", "named volumes and mounts for a bundle")
	dir := cli.RootFlag(root)
	// The flag has its value only when a verb runs.
	store := func() *volume.Store { return volume.NewStore(*dir) }
	verb := func(name string, newVerb func(func() *volume.Store) *cobra.Command) cli.Verb {
		return cli.Verb{Name: name, New: func() *cobra.Command { return newVerb(store) }}
	}
	cli.Verbs(root,
		verb("create", create), verb("list", list), verb("inspect", inspect), verb("rm", remove), verb("prune", prune),
		verb("attach", attach), verb("detach", detach),
	)
	return root
}

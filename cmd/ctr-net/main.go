// SPDX-License-Identifier: Apache-2.0

// Ctr-net joins bundles to CNI networks, publishes their ports and keeps their names. See ctr-net(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/network"
	"github.com/ctr-tools/ctr/pkg/place"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-net", "networks, ports and names for a bundle")
	dir := cli.RootFlag(root)
	// The flag has its value only when a verb runs.
	store := func() *network.Store { return network.NewStore(*dir, place.Run()) }
	verb := func(name string, newVerb func(func() *network.Store) *cobra.Command) cli.Verb {
		return cli.Verb{Name: name, New: func() *cobra.Command { return newVerb(store) }}
	}
	cli.Verbs(root,
		verb("create", create), verb("list", list), verb("inspect", inspect), verb("rm", remove),
		verb("attach", attach), verb("detach", detach),
		verb("render", render), verb("apply", apply), verb("gc", gc),
	)
	return root
}

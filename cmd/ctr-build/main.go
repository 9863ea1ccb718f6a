// SPDX-License-Identifier: Apache-2.0

// Ctr-build makes images of Dockerfiles. See ctr-build(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-build", "Dockerfile to image in a layout")
	dir := cli.RootFlag(root)
	mainVerb(root, dir)
	cli.Verbs(root,
		cli.Verb{Name: "plan", New: func() *cobra.Command { return plan(dir) }},
		cli.Verb{Name: "prune", New: func() *cobra.Command { return prune(dir) }},
	)
	return root
}

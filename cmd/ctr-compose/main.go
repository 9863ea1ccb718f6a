// SPDX-License-Identifier: Apache-2.0

// Ctr-compose runs Compose projects by chaining the other tools. See ctr-compose(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-compose", "Compose projects, by chaining the other tools")
	cli.OwnSignals(root) // up asks for a second Ctrl-C before it kills
	// Options of the project stand before the verb, so that up -f and logs -f may mean different things.
	root.TraverseChildren = true
	root.PersistentFlags().Lookup("verbose").Shorthand = "" // after a verb, -v may be something else: down -v
	t := newTool(root)
	for _, verb := range []func(*tool) *cobra.Command{
		build, config, down, execVerb, kill, logs, plan, ps, pull, restart, rm, run, start, stop, up,
	} {
		root.AddCommand(verb(t))
	}
	return root
}

// SPDX-License-Identifier: Apache-2.0

// Ctr-compose is one of the ctr tools. See ctr-compose(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-compose", "Compose projects, by chaining the other tools")
	return root
}

// SPDX-License-Identifier: Apache-2.0

// Ctr-net is one of the ctr tools. See ctr-net(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-net", "networks, ports and names for a bundle")
	return root
}

// SPDX-License-Identifier: Apache-2.0

// Ctr-push is one of the ctr tools. See ctr-push(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-push", "images out: layout to registry or archive; serve a layout as a registry")
	return root
}

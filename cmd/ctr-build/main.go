// SPDX-License-Identifier: Apache-2.0

// Ctr-build is one of the ctr tools. See ctr-build(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-build", "Dockerfile to image in a layout")
	return root
}

// SPDX-License-Identifier: Apache-2.0

// Ctr-fetch is one of the ctr tools. See ctr-fetch(1).
package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-fetch", "images in: registry or archive to image layout, layout to bundle")
	return root
}

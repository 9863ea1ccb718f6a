// SPDX-License-Identifier: Apache-2.0

// Ctr-push copies images out of an image layout and serves a layout as a registry. See ctr-push(1).
package main

import (
	"io"
	"log"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-push", "images out: layout to registry or archive; serve a layout as a registry")
	log.SetOutput(io.Discard) // net/http's: text of servers, in no form of ours
	pushFlags(root)
	cli.Verbs(root,
		cli.Verb{Name: "serve", New: serve},
		cli.Verb{Name: "delete", New: remove},
	)
	return root
}

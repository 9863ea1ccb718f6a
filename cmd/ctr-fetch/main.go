// SPDX-License-Identifier: Apache-2.0

// Ctr-fetch gets images into an image layout and unpacks them into bundles. See ctr-fetch(1).
package main

import (
	"io"
	"log"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
)

func main() { cli.Main(command) }

func command() *cobra.Command {
	root := cli.Command("ctr-fetch", "images in: registry or archive to image layout, layout to bundle")
	log.SetOutput(io.Discard) // net/http's: text of servers, in no form of ours
	fetchFlags(root)
	cli.Verbs(root,
		cli.Verb{Name: "unpack", New: unpackVerb},
		cli.Verb{Name: "list", New: list},
		cli.Verb{Name: "inspect", New: inspect},
		cli.Verb{Name: "tags", New: tags},
		cli.Verb{Name: "tag", New: tag},
		cli.Verb{Name: "rm", New: rm},
		cli.Verb{Name: "gc", New: gc},
		cli.Verb{Name: "fsck", New: fsck},
		cli.Verb{Name: "du", New: du},
	)
	return root
}

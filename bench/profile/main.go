// SPDX-License-Identifier: Apache-2.0

// Profile prints the default seccomp policy as a bundle's config.json has it (linux.seccomp), for the rows of
// bench/run that measure a filter: every runtime gets the same document.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/ctr-tools/ctr/pkg/image"
)

func main() {
	if err := json.NewEncoder(os.Stdout).Encode(image.DefaultSeccomp(image.DefaultCapabilities())); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

func TestScripts(t *testing.T) { clitest.Scripts(t, "testdata") }

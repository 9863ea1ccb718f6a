// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

func TestX(t *testing.T) { clitest.Scripts(t, "testdata") }

// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os/exec"
	"testing"
)

// testProgram is the runtime under the supervisor.
func testProgram(t testing.TB) string {
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("SKIP: needs runc")
	}
	return path
}

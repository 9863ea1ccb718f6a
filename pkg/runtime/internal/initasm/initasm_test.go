// SPDX-License-Identifier: Apache-2.0

package initasm

import "testing"

func TestCode(t *testing.T) {
	if n := len(Code()); n < 100 || n > 600 {
		t.Errorf("the interpreter has %d bytes", n)
	}
}

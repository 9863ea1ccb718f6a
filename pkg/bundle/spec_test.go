// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"os"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

func TestSpec(t *testing.T) {
	page, err := os.ReadFile("../../spec/bundle.md")
	if err != nil {
		t.Fatal(err)
	}
	clitest.Vectors(t, "bundle", string(page), 20, map[string]func([]byte) error{
		"config": func(b []byte) error {
			s := new(Bundle)
			_, err := s.parse(b)
			return err
		},
		"overlay": func(b []byte) error { _, err := ParseOverlay(string(b)); return err },
		"image":   func(b []byte) error { _, err := ParseImage(b); return err },
		"exit":    nil, // package supervise's
	})
}

// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"strings"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

func TestSpec(t *testing.T) {
	page, err := os.ReadFile("../../spec/supervise.md")
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile("../../spec/bundle.md") // for exit.json
	if err != nil {
		t.Fatal(err)
	}
	_, exit, _ := strings.Cut(string(bundle), "## exit.json")
	clitest.Vectors(t, "supervise", string(page)+exit, 15, map[string]func([]byte) error{
		"record": func(b []byte) error { _, err := parseRecord(b); return err },
		"health": func(b []byte) error { _, err := parseHealth(b); return err },
		"exit":   func(b []byte) error { _, err := parseExit(b); return err },
		"stop":   func(b []byte) error { _, err := parseStop(b); return err },
	})
}

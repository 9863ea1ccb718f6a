// SPDX-License-Identifier: Apache-2.0

package clitest

import (
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ctr-tools/ctr/pkg/toolkit"
)

const patience = 20 * time.Second

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: eventually command…")
	}
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("%s: %v, for %v", toolkit.Quote(args), err, patience)
}

// Eventually repeats f until it returns nil, for at most 20 s.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%v, for %v", err, patience)
}

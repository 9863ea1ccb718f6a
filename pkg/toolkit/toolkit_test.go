// SPDX-License-Identifier: Apache-2.0

package toolkit_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ctr-tools/ctr/pkg/toolkit"
)

func TestQuoteSurvivesTheShell(t *testing.T) {
	words := []string{"plain", "", "two words", "it's", `back\slash`, "$HOME", "`id`", "a\nb", "*", "~", "-n", "é", "a;b", "\x01"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+toolkit.Quote(words)).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, w := range words {
		want += w + "\x00"
	}
	if string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
	for word, want := range map[string]string{"a/b:c@d=1": "a/b:c@d=1", "a b": "'a b'", "": "''"} {
		if got := toolkit.QuoteWord(word); got != want {
			t.Errorf("QuoteWord(%q) = %s, want %s", word, got, want)
		}
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho out; echo \"ctr-x: $1 went wrong\" >&2; case $1 in sig) kill -TERM $$;; esac; exit 7\n"
	if err := os.WriteFile(filepath.Join(dir, "ctr-x"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for arg, status := range map[string]int{"it": 7, "sig": 128 + 15} {
		out, err := toolkit.Output(context.Background(), "ctr-x", arg)
		var f *toolkit.Failure
		if !errors.As(err, &f) || f.Status != status || f.Error() != "ctr-x: "+arg+" went wrong" {
			t.Errorf("%s: got %#v, want status %d and its own words", arg, err, status)
		}
		if string(out) != "out\n" {
			t.Errorf("%s: stdout is %q", arg, out)
		}
	}
	if _, err := toolkit.Output(context.Background(), "ctr-none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
}

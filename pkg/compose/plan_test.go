// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", os.Getenv("UPDATE") != "", "rewrite golden files")

// Each directory of testdata is a project (compose.yaml), what is there (observed.json; none: nothing), and the
// scripts of up (plan.sh) and down (down.sh), or the error of loading it (err). In observed.json the
// configuration hash "same" stands for that of the file, so that a case can say "unchanged".
func TestPlans(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/compose.yaml")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range dirs {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			abs, err := filepath.Abs(dir)
			if err != nil {
				t.Fatal(err)
			}
			var warned []string
			var up *Plan
			var want *Desired
			var have Observed
			p, err := Load(context.Background(), LoadOptions{Files: []string{file}, Name: filepath.Base(dir),
				Warn: func(s string) { warned = append(warned, "warning: "+s) }})
			if err == nil {
				want, err = Desire(p, nil)
			}
			if err == nil {
				have = observed(t, dir, want)
				up, err = Up(want, &have, UpOptions{Root: "/var/lib/ctr", Run: "/run/ctr", RemoveOrphans: true})
			}
			said := strings.Join(warned, "\n")
			if err != nil {
				said += "\n" + err.Error()
			}
			golden(t, abs, "err", strings.TrimSpace(said))
			if err != nil {
				return
			}
			down := Down(p.Name, want, &have, DownOptions{Root: "/var/lib/ctr", Run: "/run/ctr", Volumes: true})
			for _, plan := range []*Plan{up, down} {
				for i, s := range plan.Steps {
					for j := range s.Argv { // before lines are folded, so that the checkout's path is of no matter
						s.Argv[j] = portable(abs, s.Argv[j])
					}
					for _, a := range s.After {
						if a >= i {
							t.Errorf("%s: step %d is after step %d", plan.Title, i, a)
						}
					}
				}
			}
			golden(t, abs, "plan.sh", up.Script())
			golden(t, abs, "down.sh", down.Script())
		})
	}
}

func observed(t *testing.T, dir string, want *Desired) (have Observed) {
	data, err := os.ReadFile(filepath.Join(dir, "observed.json"))
	if errors.Is(err, os.ErrNotExist) {
		return Observed{}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &have); err != nil {
		t.Fatal(err)
	}
	for i := range have.Containers {
		f := &have.Containers[i]
		f.Project = want.Project
		for _, s := range want.Services {
			for _, c := range s.Containers {
				if c.ID == f.ID && f.ConfigHash == "same" {
					f.ConfigHash = c.ConfigHash
				}
			}
		}
	}
	return have
}

var profile = regexp.MustCompile(`"seccomp": \{.*\}`)

var hash = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

func portable(dir, s string) string {
	s = strings.ReplaceAll(s, dir, "/src")
	s = strings.ReplaceAll(s, "testdata/"+filepath.Base(dir), "/src")
	s = profile.ReplaceAllString(s, `"seccomp": "PROFILE"`) // long, and another one on each architecture
	return hash.ReplaceAllString(s, "HASH")
}

func golden(t *testing.T, dir, name, got string) {
	t.Helper()
	got = portable(dir, got)
	path := filepath.Join(dir, name)
	if *update {
		if got == "" {
			os.Remove(path)
		} else if err := os.WriteFile(path, []byte(strings.TrimRight(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil && !(got == "" && errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	if strings.TrimRight(string(want), "\n") != strings.TrimRight(got, "\n") {
		t.Errorf("%s differs; -update rewrites it\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// The scripts are read by the strictest shell there is here.
func TestScriptsParse(t *testing.T) {
	files, _ := filepath.Glob("testdata/*/*.sh")
	for _, f := range files {
		if out, err := exec.Command("sh", "-n", f).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", f, err, out)
		}
	}
}

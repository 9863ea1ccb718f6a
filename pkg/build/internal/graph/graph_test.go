// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/image"
)

// bases are the images that the cases start from. "onbuild" has triggers.
func bases(_ context.Context, name string, p ocispec.Platform) (*BaseImage, error) {
	b := &BaseImage{Manifest: digest.FromString(name + PlatformName(p))}
	b.Config.OS, b.Config.Architecture = p.OS, p.Architecture
	b.Config.Image.Config.Env = []string{"PATH=/bin", "BASE=" + name}
	b.Config.Image.Config.Cmd = []string{"sh"}
	switch name {
	case "missing":
		return nil, fmt.Errorf("image missing: %w", fs.ErrNotExist)
	case "onbuild":
		b.Config.OnBuild = []string{"COPY . /app", "RUN make"}
	case "user":
		b.Config.Image.Config.User, b.Config.Image.Config.WorkingDir = "app", "/srv"
	}
	return b, nil
}

func options(t *testing.T, dir string) Options {
	o := Options{
		Args:     map[string]string{"GIVEN": "from the command line"},
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Host:     ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Network:  "host",
		Base:     bases,
	}
	data, err := os.ReadFile(filepath.Join(dir, "options"))
	if err != nil {
		return o
	}
	for _, line := range strings.Fields(string(data)) {
		k, v, _ := strings.Cut(line, "=")
		switch k {
		case "target":
			o.Target = v
		case "network":
			o.Network = v
		case "platform":
			if o.Platform, err = image.ParsePlatform(v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return o
}

// describe is what a case's file "plan" holds: the operations, what they do, and the result's config.
func describe(t *testing.T, g *Graph) string {
	var b bytes.Buffer
	for _, op := range g.Ops {
		var in []int
		for _, i := range op.Inputs() {
			in = append(in, i.ID)
		}
		fmt.Fprintf(&b, "%d %s:%d-%d %v %s\n", op.ID, op.Stage, op.Line, op.End, in, Spell(op.Do))
	}
	fmt.Fprintf(&b, "=> %d %s\n", g.Top.ID, g.Target)
	config := g.Config
	config.RootFS.Type = "layers"
	data, err := json.MarshalIndent(config, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(data)
	b.WriteByte('\n')
	for _, h := range g.History {
		op := "-"
		if h.Op != nil {
			op = fmt.Sprint(h.Op.ID)
		}
		fmt.Fprintf(&b, "history %s %q\n", op, h.CreatedBy)
	}
	return b.String()
}

// TestGolden runs the cases in testdata: a Dockerfile, and what it plans or how it fails. UPDATE=1 rewrites
// the latter.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/Dockerfile")
	if err != nil || len(cases) == 0 {
		t.Fatal(cases, err)
	}
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got, other string
			name := "plan"
			f, err := Parse("Dockerfile", src)
			var g *Graph
			if err == nil {
				g, err = Build(context.Background(), f, options(t, dir))
			}
			if err != nil {
				got, name, other = err.Error()+"\n", "err", "plan"
			} else {
				got, other = describe(t, g), "err"
			}
			golden := filepath.Join(dir, name)
			if os.Getenv("UPDATE") != "" {
				os.Remove(filepath.Join(dir, other))
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("got %s", got)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestDefinition: equal work has equal definitions, whatever the file's name and lines.
func TestDefinition(t *testing.T) {
	def := func(src string) digest.Digest {
		t.Helper()
		f, err := Parse("Dockerfile", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		g, err := Build(context.Background(), f, options(t, t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		return g.Top.Definition
	}
	a := def("FROM a\nRUN x\n")
	if b := def("# a comment\n\nFROM a AS other\nrun   x\n"); a != b {
		t.Errorf("got %s and %s for the same work", a, b)
	}
	for _, other := range []string{"FROM b\nRUN x", "FROM a\nRUN y", "FROM a\nENV A=1\nRUN x", "FROM a\nUSER 1\nRUN x", "FROM a\nRUN --network=none x"} {
		if def(other) == a {
			t.Errorf("%q: got the definition of other work", other)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"FROM a\nRUN <<EOF\nx\nEOF\n", "ARG A\nFROM $A AS b\nCOPY --from=b . /\n", "FROM scratch\nEXPOSE 1-3/udp\nONBUILD RUN x",
		"FROM a\nRUN --mount=type=cache,target=/x,id=../.. y", "# syntax=x\nFROM a", "FROM onbuild\nADD <<A /\nb\nA"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := Parse("Dockerfile", src)
		if err != nil {
			return
		}
		Build(context.Background(), file, Options{Base: bases, Network: "host"})
	})
}

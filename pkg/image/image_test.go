// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
)

func TestNormalize(t *testing.T) {
	d := "@" + string(digest.FromString(""))
	for in, want := range map[string]string{
		"nginx":                        "docker.io/library/nginx:latest",
		"nginx:1.27":                   "docker.io/library/nginx:1.27",
		"org/app":                      "docker.io/org/app:latest",
		"docker.io/nginx":              "docker.io/library/nginx:latest",
		"index.docker.io/nginx":        "docker.io/library/nginx:latest",
		"localhost:5000/a":             "localhost:5000/a:latest",
		"localhost/a":                  "localhost/a:latest",
		"ghcr.io/org/app:1":            "ghcr.io/org/app:1",
		"[::1]:5000/a":                 "[::1]:5000/a:latest",
		"nginx" + d:                    "docker.io/library/nginx" + d,
		"nginx:1" + d:                  "docker.io/library/nginx:1" + d,
		"":                             "",
		"Nginx":                        "",
		"nginx:":                       "",
		"nginx@sha256:123":             "",
		"docker://nginx":               "",
		"a b":                          "",
		"../x":                         "",
		"registry.example/app:1\x1b[0": "",
	} {
		got, err := image.Normalize(in)
		if got != want || (err != nil) != (want == "") || err != nil && !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
		if want != "" && !strings.Contains(want, "@") && image.Familiar(got) != strings.TrimPrefix(strings.TrimPrefix(want, "docker.io/"), "library/") {
			t.Errorf("familiar %q: %q", got, image.Familiar(got))
		}
	}
}

func TestParseOperand(t *testing.T) {
	d := digest.FromString("")
	for in, want := range map[string]image.Operand{
		"nginx":                          {Name: "docker.io/library/nginx:latest"},
		"nginx@" + string(d):             {Name: "docker.io/library/nginx@" + string(d), Digest: d},
		string(d):                        {Digest: d},
		"oci:dir":                        {Kind: image.KindLayout, Path: "dir"},
		"oci:/a/b:example.com:5000/x:1":  {Kind: image.KindLayout, Path: "/a/b", Name: "example.com:5000/x:1"},
		"oci:dir@" + string(d):           {Kind: image.KindLayout, Path: "dir", Digest: d},
		"oci:dir:app@" + string(d):       {Kind: image.KindLayout, Path: "dir", Name: "app@" + string(d)},
		"oci:user@host":                  {Kind: image.KindLayout, Path: "user@host"},
		"oci-archive:-":                  {Kind: image.KindOCIArchive, Path: "-"},
		"oci-archive:x.tar:latest":       {Kind: image.KindOCIArchive, Path: "x.tar", Name: "latest"},
		"docker-archive:/tmp/x.tar:a:1":  {Kind: image.KindDockerArchive, Path: "/tmp/x.tar", Name: "a:1"},
		"oci:":                           {},
		"oci:-":                          {},
		"oci:dir@sha256:12":              {},
		"docker-archive::x":              {},
		"sha256:12/../x":                 {},
		"unknown-transport:/etc/passwd:": {},
	} {
		got, err := image.ParseOperand(in)
		if got != want || (err != nil) != (want == image.Operand{}) {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
		}
		if err == nil && got.Kind != image.KindReference && got.String() != in {
			t.Errorf("%q prints as %q", in, got)
		}
	}
}

func FuzzParseOperand(f *testing.F) {
	for _, s := range []string{"nginx", "oci:a:b", "oci:a@sha256:00", "docker-archive:-:x", "a/b:c@sha256:d", "localhost:5000/a", "::", "oci:@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := image.ParseOperand(s)
		if err != nil {
			return
		}
		if again, err := image.ParseOperand(o.String()); err != nil || again != o {
			t.Fatalf("%q is %+v, prints as %q, which is %+v, %v", s, o, o, again, err)
		}
	})
}

func FuzzNormalize(f *testing.F) {
	f.Add("nginx:1.27")
	f.Add("localhost:5000/a/b__c@sha256:" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, s string) {
		n, err := image.Normalize(s)
		if err != nil {
			return
		}
		if again, err := image.Normalize(n); err != nil || again != n {
			t.Fatalf("%q is %q, which is %q, %v", s, n, again, err)
		}
		if again, err := image.Normalize(image.Familiar(n)); err != nil || again != n {
			t.Fatalf("%q is %q, for people %q, which is %q, %v", s, n, image.Familiar(n), again, err)
		}
	})
}

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/amd64/v1": "linux/amd64",
		"linux/amd64/v3": "linux/amd64/v3", "aarch64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7",
		"linux/arm/6": "linux/arm/v6", "armhf": "linux/arm/v7", "windows/amd64": "windows/amd64", "linux/": "", "": "", "a/b/c/d": "", "linux/../x": "",
	} {
		p, err := image.ParsePlatform(in)
		if err == nil && image.FormatPlatform(p) != want || (err != nil) != (want == "") {
			t.Errorf("%q: %s, %v, want %q", in, image.FormatPlatform(p), err, want)
		}
	}
	if _, err := image.ParsePlatform("local"); err != nil {
		t.Error(err)
	}
}

func TestChoose(t *testing.T) {
	index := func(platforms ...string) (ms []ocispec.Descriptor) {
		for _, s := range platforms {
			m := ocispec.Descriptor{MediaType: s}
			switch s {
			case "none":
			case "unknown/unknown":
				m.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
			default:
				parts := strings.Split(s, "/")
				m.Platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
				if len(parts) > 2 {
					m.Platform.Variant = parts[2]
				}
			}
			ms = append(ms, m)
		}
		return ms
	}
	for _, c := range []struct {
		index []string
		want  string
		got   string
	}{
		{[]string{"linux/amd64", "linux/arm64"}, "linux/arm64", "linux/arm64"},
		{[]string{"linux/arm/v5", "linux/arm/v7", "linux/arm/v6"}, "linux/arm/v7", "linux/arm/v7"},
		{[]string{"linux/arm/v5", "linux/arm/v6"}, "linux/arm/v7", "linux/arm/v6"},
		{[]string{"linux/arm/v7", "linux/arm/v6"}, "linux/arm/v6", "linux/arm/v6"},
		{[]string{"linux/arm/v7"}, "linux/arm/v6", ""},
		{[]string{"linux/arm"}, "linux/arm/v7", "linux/arm"},
		{[]string{"linux/arm64/v8"}, "linux/arm64", "linux/arm64/v8"},
		{[]string{"linux/amd64/v3", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"linux/amd64", "linux/amd64/v2"}, "linux/amd64/v3", "linux/amd64/v2"},
		{[]string{"linux/amd64/v3"}, "linux/amd64", ""},
		{[]string{"windows/amd64"}, "linux/amd64", ""},
		{[]string{"none"}, "linux/amd64", "none"},
		{[]string{"none", "linux/s390x"}, "linux/amd64", ""},
		{[]string{"unknown/unknown", "linux/amd64"}, "linux/amd64", "linux/amd64"},
		{[]string{"unknown/unknown"}, "unknown/unknown", ""},
		{nil, "linux/amd64", ""},
	} {
		p, err := image.ParsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := image.Choose(index(c.index...), p); got.MediaType != c.got {
			t.Errorf("%s of %v: %q, want %q", c.want, c.index, got.MediaType, c.got)
		}
	}
}

const dockerConfig = `{"architecture":"arm","variant":"v7","os":"linux","created":"2026-01-02T03:04:05.123456789Z","docker_version":"29","container_config":{"X":[1.50]},
"config":{"Env":["A=<b>&c"],"Cmd":["sh"],"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000},"OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],"StopTimeout":7,"Hostname":"h","MacAddress":null},
"history":[{"created_by":"x","empty_layer":true}],"rootfs":{"type":"layers","diff_ids":[]}}`

// Reading and writing a config loses nothing, Docker's fields and unknown ones included.
func TestConfigKeepsAll(t *testing.T) {
	var c image.Config
	if err := json.Unmarshal([]byte(dockerConfig), &c); err != nil {
		t.Fatal(err)
	}
	if c.Healthcheck == nil || c.Healthcheck.Test[1] != "true" || c.OnBuild[0] != "RUN x" || c.Shell[0] != "/bin/bash" || *c.StopTimeout != 7 || c.Config.Cmd[0] != "sh" || c.Variant != "v7" {
		t.Errorf("read %+v", c)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(dockerConfig), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// memory is a Store.
type memory map[digest.Digest][]byte

func (m memory) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := m[d.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m memory) put(mediaType string, format string, args ...any) ocispec.Descriptor {
	data := []byte(fmt.Sprintf(format, args...))
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	m[d.Digest] = data
	return d
}

func (m memory) json(d ocispec.Descriptor) string {
	data, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestLoad(t *testing.T) {
	m := memory{}
	config := m.put(ocispec.MediaTypeImageConfig, "%s", dockerConfig)
	arm := m.put(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":%s,"layers":[]}`, m.json(config))
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	absent := arm
	absent.Digest, absent.Platform = digest.FromString("absent"), &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	inner := m.put(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[%s,%s]}`, m.json(absent), m.json(arm))
	inner.Platform = arm.Platform
	outer := m.put(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[%s]}`, m.json(inner))
	p, err := image.ParsePlatform("linux/arm/v7")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Load(t.Context(), m, outer, &p)
	if err != nil || img.Index != outer.Digest || img.Descriptor.Digest != arm.Digest || img.Config.Author != "" || string(img.RawConfig) != dockerConfig {
		t.Errorf("load: %+v, %v", img, err)
	}
	layers := m.put(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":%s,"layers":[%s]}`, m.json(config), m.json(config))
	artifact := m.put(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":%s,"layers":[]}`, m.json(m.put(ocispec.MediaTypeEmptyJSON, "{}")))
	amd := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	for _, c := range []struct {
		what string
		d    ocispec.Descriptor
		p    *ocispec.Platform
		kind error
	}{
		{"a sparse index", inner, &amd, fs.ErrNotExist},
		{"an index without the platform", inner, &ocispec.Platform{OS: "linux", Architecture: "riscv64"}, fs.ErrNotExist},
		{"a manifest of another platform", arm, &amd, fs.ErrNotExist},
		{"more layers than diff_ids", layers, nil, fault.ErrUnverified},
		{"an artifact", artifact, nil, nil},
	} {
		if _, err := image.Load(t.Context(), m, c.d, c.p); err == nil || c.kind != nil && !errors.Is(err, c.kind) {
			t.Errorf("load %s: %v, want %v", c.what, err, c.kind)
		}
	}
	m[config.Digest] = append([]byte(" "), m[config.Digest][1:]...)
	if _, err := image.Load(t.Context(), m, arm, nil); !errors.Is(err, fault.ErrUnverified) {
		t.Errorf("load a damaged config: %v", err)
	}
}

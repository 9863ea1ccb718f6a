// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func config(t *testing.T, doc string) *Config {
	t.Helper()
	c := new(Config)
	if err := json.Unmarshal([]byte(doc), c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestArgs(t *testing.T) {
	both := `{"config":{"Entrypoint":["e","1"],"Cmd":["c","2"]}}`
	for name, c := range map[string]struct {
		doc  string
		o    RuntimeOptions
		want []string
	}{
		"image's":                  {both, RuntimeOptions{}, []string{"e", "1", "c", "2"}},
		"other command":            {both, RuntimeOptions{Cmd: []string{"x"}}, []string{"e", "1", "x"}},
		"no command":               {both, RuntimeOptions{Cmd: []string{}}, []string{"e", "1"}},
		"entrypoint drops command": {both, RuntimeOptions{Entrypoint: []string{"n"}}, []string{"n"}},
		"entrypoint and command":   {both, RuntimeOptions{Entrypoint: []string{"n"}, Cmd: []string{"x"}}, []string{"n", "x"}},
		"no entrypoint, command":   {both, RuntimeOptions{Entrypoint: []string{}, Cmd: []string{"x"}}, []string{"x"}},
		"nothing":                  {`{}`, RuntimeOptions{}, nil},
	} {
		spec, err := RuntimeSpec(config(t, c.doc), nil, c.o)
		if err != nil || !slices.Equal(spec.Process.Args, c.want) {
			t.Errorf("%s: %q, %v, want %q", name, spec.Process.Args, err, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	c := config(t, `{"config":{"Env":["A=1","B=2","A=3","=x","novalue","EMPTY="]}}`)
	spec, err := RuntimeSpec(c, nil, RuntimeOptions{Env: []string{"B=mine", "C=new"}, Terminal: true, Hostname: "h"})
	want := []string{"PATH=" + DefaultPath, "HOSTNAME=h", "TERM=xterm", "A=3", "B=mine", "EMPTY=", "C=new", "HOME=/"}
	if err != nil || !slices.Equal(spec.Process.Env, want) {
		t.Errorf("%q, %v, want %q", spec.Process.Env, err, want)
	}
	for _, doc := range []string{`{"config":{"Env":["A=\u0000"]}}`, `{"config":{"Cmd":["a\u0000b"]}}`, `{"config":{"WorkingDir":"a\u0000b"}}`} {
		if _, err := RuntimeSpec(config(t, doc), nil, RuntimeOptions{}); err == nil {
			t.Errorf("%s: no error", doc)
		}
	}
}

func TestLabelsAreInert(t *testing.T) {
	c := config(t, `{"os":"linux","architecture":"arm64","variant":"v8","author":"me","created":"2020-01-02T03:04:05Z","config":{
"StopSignal":"SIGQUIT","ExposedPorts":{"80/tcp":{},"53/udp":{}},"Volumes":{"/b":{},"/a":{}},
"Labels":{"a":"b","org.opencontainers.image.author":"label","dev.ctr.rootfs.overlay":"x","dev.ctr.image.volumes":"[\"/etc\"]","run.oci.handler":"wasm",
"org.systemd.property.ExecStart":"x","com.docker.compose.project":"p","io.kubernetes.cri-o.x":"y","":"empty"}}}`)
	spec, err := RuntimeSpec(c, nil, RuntimeOptions{Annotations: map[string]string{"dev.ctr.mine": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a": "b", "dev.ctr.mine": "1", "org.opencontainers.image.author": "label",
		"org.opencontainers.image.os": "linux", "org.opencontainers.image.architecture": "arm64", "org.opencontainers.image.variant": "v8",
		"org.opencontainers.image.created": "2020-01-02T03:04:05Z", AnnotationStopSignal: "SIGQUIT",
		AnnotationExposedPorts: "53/udp,80/tcp", AnnotationVolumes: `["/a","/b"]`,
	}
	for k, v := range want {
		if spec.Annotations[k] != v {
			t.Errorf("annotation %s: %q, want %q", k, spec.Annotations[k], v)
		}
	}
	if len(spec.Annotations) != len(want) {
		t.Errorf("annotations %v", spec.Annotations)
	}
}

func TestConfinement(t *testing.T) {
	for user, effective := range map[string]int{"0": 14, "7": 0} {
		spec, err := RuntimeSpec(config(t, `{"config":{"User":"`+user+`","WorkingDir":"../../x/../y"}}`), nil, RuntimeOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		caps := spec.Process.Capabilities
		if len(caps.Bounding) != 14 || len(caps.Effective) != effective || len(caps.Permitted) != effective || caps.Inheritable != nil || caps.Ambient != nil {
			t.Errorf("user %s: capabilities %+v", user, caps)
		}
		if slices.ContainsFunc(caps.Bounding, func(c string) bool { return strings.Contains(c, "ADMIN") || strings.Contains(c, "PTRACE") }) {
			t.Errorf("capabilities %v", caps.Bounding)
		}
		if spec.Process.Cwd != "/y" || !spec.Root.Readonly || spec.Linux.Seccomp == nil || spec.Process.Rlimits != nil {
			t.Errorf("cwd %q, root %+v", spec.Process.Cwd, spec.Root)
		}
		if d := spec.Linux.Resources.Devices[0]; d.Allow || d.Access != "rwm" || d.Type != "" {
			t.Errorf("first device rule %+v, want deny all", d)
		}
		for _, ns := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.NetworkNamespace, specs.CgroupNamespace} {
			if !slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == ns && n.Path == "" }) {
				t.Errorf("no %s namespace", ns)
			}
		}
		for _, m := range spec.Mounts {
			if strings.HasPrefix(m.Destination, "/sys") && !slices.Contains(m.Options, "ro") {
				t.Errorf("%s is writable", m.Destination)
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const minimal = `{"ociVersion":"1.2.0","root":{"path":"r"},"process":{"args":["x"],"cwd":"/","user":{"uid":0,"gid":0}},
"linux":{"namespaces":[{"type":"mount"},{"type":"uts"}]}}`

// Every member, read by us and by encoding/json, has to come out the same.
func TestAsEncodingJSON(t *testing.T) {
	data, err := os.ReadFile("testdata/full.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	want := new(specs.Spec)
	if err := json.Unmarshal(data, want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		gl, wl := strings.Split(string(g), "\n"), strings.Split(string(w), "\n")
		for i := range wl {
			if i >= len(gl) || gl[i] != wl[i] {
				t.Fatalf("line %d: got %s, want %s", i, gl[min(i, len(gl)-1)], wl[i])
			}
		}
		t.Error("they differ in what JSON does not show")
	}
}

func TestRefused(t *testing.T) {
	if _, err := Parse([]byte(minimal)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][3]string{
		{`"1.2.0"`, `"2.0.0"`, `ociVersion: found "2.0.0"`},
		{`"uid":0`, `"uid":"root"`, `line 1: process.user.uid: found "root", want an integer of 0 to 4294967294`},
		{`"uid":0`, `"uid":4294967296`, `found 4294967296, want an integer`},
		{`"uid":0`, `"uid":-1`, `found -1`},
		{`{"type":"uts"}`, `{"type":"mount"}`, `linux.namespaces[1].type: found "mount" a second time`},
		{`{"type":"uts"}`, `{"type":"nope"}`, `linux.namespaces[1].type: found "nope"`},
		{`{"type":"mount"},`, ``, `no mount namespace`},
		{`{"type":"uts"}`, `{"type":"user"}`, `linux.uidMappings`},
		{`"cwd":"/"`, `"cwd":"x"`, `process.cwd: found "x", want an absolute path`},
		{`"args":["x"]`, `"args":[]`, `process.args: found nothing`},
		{`"args":["x"]`, `"args":["x"],"env":["A"]`, `process.env[0]: found "A", want NAME=VALUE`},
		{`"args":["x"]`, `"args":["x"],"rlimits":[{"type":"RLIMIT_X"}]`, `process.rlimits[0].type: found "RLIMIT_X"`},
		{`"args":["x"]`, `"args":["x\u0000y"]`, `escape`},
		{`"linux":{`, `"linux":{"sysctl":{"kernel.panic":"1"},`, `linux.sysctl: found "kernel.panic"`},
		{`"linux":{`, `"linux":{"sysctl":{"net.ipv4.ip_forward":"1"},`, `without a network namespace`},
		{`"linux":{`, `"linux":{"sysctl":{"net/../kernel/panic":"1"},`, `linux.sysctl: found`},
		{`"linux":{`, `"linux":{"cgroupsPath":"/a/../../b",`, `linux.cgroupsPath`},
		{`"linux":{`, `"linux":{"rootfsPropagation":"x",`, `linux.rootfsPropagation`},
		{`"linux":{`, `"linux":{"intelRdt":{},`, `linux.intelRdt`},
		{`"linux":{`, `"linux":{"devices":[{"path":"x","type":"c"}],`, `linux.devices: path`},
		{`"linux":{`, `"windows":{},"linux":{`, `windows: found a configuration for windows`},
		{`"linux":{`, `"hooks":{"poststop":[{"path":"x"}]},"linux":{`, `hooks.poststop[0]: found path "x", want an absolute path`},
		{`"linux":{`, "\n\"linux\":[{", `line 3: linux: found an array, want an object`},
	} {
		_, err := Parse([]byte(strings.Replace(minimal, c[0], c[1], 1)))
		if err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: got %v, want %s", c[1], err, c[2])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	if b, err := os.ReadFile("testdata/full.json"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Parse(data); err == nil && !json.Valid(data) {
			t.Errorf("%q is no JSON", data)
		}
		ParseProcess(data)
	})
}

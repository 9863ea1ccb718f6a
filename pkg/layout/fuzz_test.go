// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"encoding/json"
	"testing"
)

// Whatever index.json is accepted is written again so that it says the same.
func FuzzIndex(f *testing.F) {
	for _, s := range []string{`{"schemaVersion":2,"manifests":[]}`, `{"schemaVersion":2}`, `{"manifests":[{"digest":"x","size":1e3}],"x":[1,{"a":null}]}`,
		`{"manifests":[],"manifests":[]}`, `{"manifests":{}}`, `[]`, `{"schemaVersion":2,"layers":[]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex(data)
		if err != nil {
			return
		}
		once := x.bytes()
		if !json.Valid(once) {
			t.Fatalf("%q became %q", data, once)
		}
		y, err := parseIndex(once)
		if err != nil || !bytes.Equal(once, y.bytes()) || len(x.entries) != len(y.entries) {
			t.Fatalf("%q became %q, then %v", data, once, err)
		}
	})
}

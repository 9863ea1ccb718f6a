// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// keepUnknown applies to the document old the difference between before and after, two encodings of the
// fields that runtime-spec knows, so that the fields it does not know stay: in objects, and in those elements of an
// array that did not change.
func keepUnknown(old, before, after []byte) ([]byte, error) {
	o, err := decode(old)
	if err != nil {
		return nil, err
	}
	b, err := decode(before)
	if err != nil {
		return nil, err
	}
	a, err := decode(after)
	if err != nil {
		return nil, err
	}
	return marshal(graft(o, b, a))
}

func graft(old, before, after any) any {
	if reflect.DeepEqual(before, after) {
		return old
	}
	switch a := after.(type) {
	case map[string]any:
		if o, ok := old.(map[string]any); ok {
			return graftObject(o, before, a)
		}
	case []any:
		o, ok1 := old.([]any)
		b, ok2 := before.([]any)
		if ok1 && ok2 && len(o) == len(b) {
			return graftArray(o, b, a)
		}
	}
	return after
}

func graftObject(old map[string]any, before any, after map[string]any) any {
	b, _ := before.(map[string]any)
	for k := range b {
		if _, kept := after[k]; !kept {
			delete(old, k)
		}
	}
	for k, v := range after {
		if o, there := old[k]; there {
			v = graft(o, b[k], v)
		}
		old[k] = v
	}
	return old
}

func graftArray(old, before, after []any) any {
	used := make([]bool, len(before))
	same := func(i, j int) bool {
		if j >= len(before) || used[j] || !reflect.DeepEqual(before[j], after[i]) {
			return false
		}
		used[j] = true
		after[i] = old[j]
		return true
	}
	for i := range after {
		for j, found := 0, same(i, i); j < len(before) && !found; j++ {
			found = same(i, j)
		}
	}
	return after
}

// MergePatch applies an RFC 7396 merge patch to a JSON document: objects merge, null removes, anything else
// replaces.
func MergePatch(doc, patch []byte) ([]byte, error) {
	d, err := decode(doc)
	if err != nil {
		return nil, err
	}
	p, err := decode(patch)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	return marshal(merge(d, p))
}

func merge(doc, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	d, ok := doc.(map[string]any)
	if !ok {
		d = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(d, k)
		} else {
			d[k] = merge(d[k], v)
		}
	}
	return d
}

// decode reads one JSON document, numbers as they are written.
func decode(data []byte) (v any, err error) {
	if err := unmarshal(data, new(json.RawMessage)); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

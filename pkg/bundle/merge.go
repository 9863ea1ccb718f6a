// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// keepUnknown applies to the document old the difference between before and after, two encodings of the
// fields that runtime-spec knows, so that the fields it does not know stay. It keeps them in objects; an
// array that changes is replaced.
func keepUnknown(old, before, after []byte) ([]byte, error) {
	var o, b, a any
	for _, x := range []struct {
		data []byte
		into *any
	}{{old, &o}, {before, &b}, {after, &a}} {
		d := json.NewDecoder(bytes.NewReader(x.data))
		d.UseNumber()
		if err := d.Decode(x.into); err != nil {
			return nil, err
		}
	}
	return marshal(graft(o, b, a))
}

func graft(old, before, after any) any {
	om, ok1 := old.(map[string]any)
	bm, ok2 := before.(map[string]any)
	am, ok3 := after.(map[string]any)
	if !ok1 || !ok3 {
		return after
	}
	if !ok2 {
		bm = map[string]any{}
	}
	for k := range bm {
		if _, kept := am[k]; !kept {
			delete(om, k)
		}
	}
	for k, v := range am {
		if o, there := om[k]; there {
			om[k] = graft(o, bm[k], v)
		} else {
			om[k] = v
		}
	}
	return om
}

// MergePatch applies an RFC 7396 merge patch to a JSON document: objects merge, null removes, anything else
// replaces.
func MergePatch(doc, patch []byte) ([]byte, error) {
	var d, p any
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("line %d: %w", line(doc, dec.InputOffset()), err)
	}
	dec = json.NewDecoder(bytes.NewReader(patch))
	dec.UseNumber()
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("patch: line %d: %w", line(patch, dec.InputOffset()), err)
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

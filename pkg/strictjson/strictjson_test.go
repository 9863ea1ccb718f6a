// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// value reads any document into what encoding/json would make of it (integers only).
func value(r *Reader) (v any) {
	switch c := r.next(); {
	case c == '{':
		m := map[string]any{}
		r.Object(func(k string) { m[k] = value(r) })
		return m
	case c == '[':
		l := []any{}
		r.Array(func() { l = append(l, value(r)) })
		return l
	case c == '"':
		return r.String()
	case c == 't' || c == 'f':
		return r.Bool()
	case c == 'n':
		r.Skip()
		return nil
	}
	return float64(r.Int(-1<<52, 1<<52))
}

func TestGood(t *testing.T) {
	for _, doc := range []string{
		`{}`, ` [ ] `, `{"a":[1,-2,0],"b":{"c":true,"d":null}}`, `"\u00e4\ud83d\ude00\n\"\\\/"`, `[[[["x"]]]]`, `{"":{"":""}}`,
	} {
		r := New([]byte(doc))
		got := value(r)
		if err := r.End(); err != nil {
			t.Errorf("%s: %v", doc, err)
		}
		var want any
		if err := json.Unmarshal([]byte(doc), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", doc, got, want)
		}
		r = New([]byte(doc))
		r.Skip()
		if err := r.End(); err != nil {
			t.Errorf("skip %s: %v", doc, err)
		}
	}
}

func TestBad(t *testing.T) {
	for doc, want := range map[string]string{
		"":                         "line 1: found the end, want",
		`{"a":1,"a":2}`:            `line 1: found the key "a" a second time, want each key once`,
		"{\n\"a\":\n[1,x]}":        "line 3: a[1]: found x, want an integer",
		`{"a":1}{`:                 "line 1: found an object, want the end of the document",
		`{"a":{"b":[{"c":1.5}]}}`:  "line 1: a.b[0].c: found 1.5, want an integer",
		`{"a":01}`:                 "line 1: a: found 01, want",
		`["` + "\x01" + `"]`:       "line 1: [0]: found a control character in a string, want \\u0001",
		`["\u0000"]`:               "found a bad \\u escape",
		`["\ud800"]`:               "found a bad \\u escape",
		`["\x"]`:                   "found a bad escape",
		`["` + "\xff" + `"]`:       "found a byte that is no UTF-8",
		`["abc`:                    "found a string without end",
		`[1`:                       "line 1: found the end, want a comma or ]",
		`{"a" 1}`:                  "found 1, want a colon",
		`{a:1}`:                    "want a key in quotes",
		`[9007199254740993]`:       "want an integer of",
		strings.Repeat("[", 100):   "found nesting deeper than 64",
		strings.Repeat(`{"":`, 90): "found nesting deeper than 64",
	} {
		r := New([]byte(doc))
		value(r)
		err := r.End()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", doc, err, want)
		}
	}
}

func TestManyKeys(t *testing.T) {
	var b strings.Builder
	b.WriteString("{")
	for i := range 500 {
		b.WriteString(`"k` + strings.Repeat("x", i) + `":1,`)
	}
	r := New([]byte(b.String() + `"z":1}`))
	r.Skip()
	if err := r.End(); err != nil {
		t.Error(err)
	}
	r = New([]byte(b.String() + `"kx":1}`))
	r.Skip()
	if err := r.End(); err == nil || !strings.Contains(err.Error(), "second time") {
		t.Errorf("got %v, want the key a second time", err)
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "a\"b\\c\n\t\x01\x7f", "ä😀"} {
		var got string
		if err := json.Unmarshal(Quote(nil, s), &got); err != nil || got != s {
			t.Errorf("%q: got %q %v", s, got, err)
		}
	}
}

// What Skip accepts, encoding/json has to accept too.
func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{"a":[1.5e+3,true,null,"\u00e4"]}`, `[-0]`, `"\ud83d\ude00"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := New(data)
		r.Skip()
		if r.End() == nil && !json.Valid(data) {
			t.Errorf("%q is no JSON", data)
		}
	})
}

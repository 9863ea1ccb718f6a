// SPDX-License-Identifier: Apache-2.0

// Package strictjson reads JSON (RFC 8259) without reflection, for documents that come from outside and are
// read where time counts. It refuses what encoding/json lets pass: keys given twice, invalid UTF-8, NUL in
// strings, numbers out of range, text after the document. Its errors say line, path, value found and value
// wanted:
//
//	line 12: process.user.uid: found "root", want an integer of 0 to 4294967295
//
// A document is read with calls that mirror it; after the first error every call returns at once:
//
//	r := strictjson.New(data)
//	r.Object(func(key string) {
//		switch key {
//		case "name":
//			name = r.String()
//		default:
//			r.Skip()
//		}
//	})
//	err := r.End()
//
// Strings that need no unescaping borrow the input, which must not change while they are in use. A null is
// taken as absent. The package writes no documents; [Quote] helps those that do.
package strictjson

import (
	"errors"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

const maxDepth = 64

// A Reader is at one place of a document. It is used by one goroutine.
type Reader struct {
	data []byte
	pos  int
	err  error
	path []step
	keys []string // of all objects that are open
}

// A step is one element of the path: a key, or an index if key is empty.
type step struct {
	key   string
	index int
}

// New returns a Reader at the start of data.
func New(data []byte) *Reader {
	r := &Reader{data: data, path: make([]step, 0, 16), keys: make([]string, 0, 64)}
	if !utf8.Valid(data) {
		for r.pos < len(data) {
			c, n := utf8.DecodeRune(data[r.pos:])
			if c == utf8.RuneError && n == 1 {
				break
			}
			r.pos += n
		}
		r.Fail("a byte that is no UTF-8", "UTF-8")
	}
	return r
}

// End returns the first error, or one if anything but white space follows.
func (r *Reader) End() error {
	if r.err == nil && r.next() != 0 {
		r.Fail(r.found(), "the end of the document")
	}
	return r.err
}

// Err is the first error.
func (r *Reader) Err() error { return r.err }

// Fail records an error at the place of the value that is being read, unless there is one already.
func (r *Reader) Fail(found, want string) {
	if r.err != nil {
		return
	}
	line := 1
	for _, c := range r.data[:min(r.pos, len(r.data))] {
		if c == '\n' {
			line++
		}
	}
	s := "line " + strconv.Itoa(line) + ": "
	if p := r.Path(); p != "" {
		s += p + ": "
	}
	r.err = errors.New(s + "found " + found + ", want " + want)
	r.pos = len(r.data)
}

// Path is where the reader is: process.rlimits[2].type.
func (r *Reader) Path() string {
	var b []byte
	for _, s := range r.path {
		if s.key == "" {
			b = append(b, '[')
			b = strconv.AppendInt(b, int64(s.index), 10)
			b = append(b, ']')
			continue
		}
		if len(b) > 0 {
			b = append(b, '.')
		}
		b = append(b, s.key...)
	}
	return string(b)
}

// next skips white space and returns the byte there, 0 at the end.
func (r *Reader) next() byte {
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; c {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return c
		}
	}
	return 0
}

func (r *Reader) literal(s string) bool {
	if len(r.data)-r.pos >= len(s) && string(r.data[r.pos:r.pos+len(s)]) == s {
		r.pos += len(s)
		return true
	}
	return false
}

// found describes the value at the reader's place.
func (r *Reader) found() string {
	switch c := r.next(); {
	case c == 0:
		return "the end"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	}
	end := r.pos + 1
	quoted := r.data[r.pos] == '"'
	for end < len(r.data) && end-r.pos < 40 {
		c := r.data[end]
		if quoted && c == '"' {
			end++
			break
		}
		if c < ' ' || !quoted && (c == ',' || c == '}' || c == ']' || c == ' ' || c == ':') {
			break
		}
		end++
	}
	if end-r.pos == 40 {
		return string(r.data[r.pos:end]) + "…"
	}
	return string(r.data[r.pos:end])
}

// Null takes a null and says whether there was one.
func (r *Reader) Null() bool { return r.err == nil && r.next() == 'n' && r.literal("null") }

// Object calls f for each member with the reader at its value, which f has to take.
func (r *Reader) Object(f func(key string)) {
	if r.err != nil || r.Null() {
		return
	}
	if r.next() != '{' {
		r.Fail(r.found(), "an object")
		return
	}
	if len(r.path) == maxDepth {
		r.Fail("nesting deeper than "+strconv.Itoa(maxDepth), "less")
		return
	}
	r.pos++
	if r.next() == '}' {
		r.pos++
		return
	}
	first := len(r.keys)
	var many map[string]bool
	for r.err == nil {
		if r.next() != '"' {
			r.Fail(r.found(), "a key in quotes")
			return
		}
		start := r.pos
		key := r.String()
		seen := many[key]
		if many == nil {
			for _, k := range r.keys[first:] {
				seen = seen || k == key
			}
			r.keys = append(r.keys, key)
			if len(r.keys)-first > 64 {
				many = make(map[string]bool, 128)
				for _, k := range r.keys[first:] {
					many[k] = true
				}
				r.keys = r.keys[:first]
			}
		} else {
			many[key] = true
		}
		if seen && r.err == nil {
			r.pos = start
			r.Fail("the key "+strconv.Quote(key)+" a second time", "each key once")
			return
		}
		if r.next() != ':' {
			r.Fail(r.found(), "a colon")
			return
		}
		r.pos++
		r.path = append(r.path, step{key: key})
		f(key)
		if r.err != nil {
			return
		}
		r.path = r.path[:len(r.path)-1]
		switch r.next() {
		case ',':
			r.pos++
		case '}':
			r.pos++
			r.keys = r.keys[:first]
			return
		default:
			r.Fail(r.found(), "a comma or }")
		}
	}
}

// Array calls f for each element with the reader at it; f has to take it.
func (r *Reader) Array(f func()) {
	if r.err != nil || r.Null() {
		return
	}
	if r.next() != '[' {
		r.Fail(r.found(), "an array")
		return
	}
	if len(r.path) == maxDepth {
		r.Fail("nesting deeper than "+strconv.Itoa(maxDepth), "less")
		return
	}
	r.pos++
	if r.next() == ']' {
		r.pos++
		return
	}
	for i := 0; r.err == nil; i++ {
		r.path = append(r.path, step{index: i})
		f()
		if r.err != nil {
			return
		}
		r.path = r.path[:len(r.path)-1]
		switch r.next() {
		case ',':
			r.pos++
		case ']':
			r.pos++
			return
		default:
			r.Fail(r.found(), "a comma or ]")
		}
	}
}

// String takes a string; null is the empty one.
func (r *Reader) String() string {
	if r.err != nil || r.Null() {
		return ""
	}
	if r.next() != '"' {
		r.Fail(r.found(), "a string")
		return ""
	}
	for i := r.pos + 1; i < len(r.data); i++ {
		switch c := r.data[i]; {
		case c == '"':
			s := r.data[r.pos+1 : i]
			r.pos = i + 1
			return unsafe.String(unsafe.SliceData(s), len(s))
		case c == '\\':
			return r.unescape(i)
		case c < ' ':
			r.pos = i
			r.Fail("a control character in a string", "\\u"+"00"+hexByte(c))
			return ""
		}
	}
	r.Fail("a string without end", "a closing quote")
	return ""
}

func hexByte(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

// unescape takes the rest of a string whose first backslash is at i.
func (r *Reader) unescape(i int) string {
	out := append([]byte(nil), r.data[r.pos+1:i]...)
	for i < len(r.data) {
		c := r.data[i]
		i++
		switch {
		case c == '"':
			r.pos = i
			return string(out)
		case c < ' ':
			r.pos = i - 1
			r.Fail("a control character in a string", "\\u"+"00"+hexByte(c))
			return ""
		case c != '\\':
			out = append(out, c)
			continue
		}
		if i == len(r.data) {
			break
		}
		e := r.data[i]
		i++
		switch e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			c, ok := r.hex4(i)
			i += 4
			if ok && c >= 0xd800 && c < 0xe000 { // half of a surrogate pair
				var low rune
				ok = c < 0xdc00 && i+6 <= len(r.data) && string(r.data[i:i+2]) == "\\u"
				if ok {
					low, ok = r.hex4(i + 2)
					ok = ok && low >= 0xdc00 && low < 0xe000
				}
				c = (c-0xd800)<<10 + (low - 0xdc00) + 0x10000
				i += 6
			}
			if !ok || c == 0 {
				r.pos = min(i, len(r.data))
				r.Fail("a bad \\u escape", "a character other than NUL")
				return ""
			}
			out = utf8.AppendRune(out, c)
		default:
			r.pos = i
			r.Fail("a bad escape in a string", "one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u")
			return ""
		}
	}
	r.Fail("a string without end", "a closing quote")
	return ""
}

func (r *Reader) hex4(i int) (rune, bool) {
	if i+4 > len(r.data) {
		return 0, false
	}
	v, err := strconv.ParseUint(string(r.data[i:i+4]), 16, 16)
	return rune(v), err == nil
}

// Strings takes an array of strings.
func (r *Reader) Strings() (list []string) {
	r.Array(func() {
		if list == nil {
			list = make([]string, 0, 16)
		}
		list = append(list, r.String())
	})
	return list
}

// StringMap takes an object whose values are strings.
func (r *Reader) StringMap() map[string]string {
	m := map[string]string{}
	r.Object(func(key string) { m[key] = r.String() })
	return m
}

// Bool takes true or false; null is false.
func (r *Reader) Bool() bool {
	if r.err != nil || r.Null() {
		return false
	}
	r.next()
	if r.literal("true") {
		return true
	}
	if !r.literal("false") {
		r.Fail(r.found(), "true or false")
	}
	return false
}

// number takes the text of a number as RFC 8259 spells it.
func (r *Reader) number() string {
	r.next()
	i, digits := r.pos, 0
	if i < len(r.data) && r.data[i] == '-' {
		i++
	}
	for i < len(r.data) && r.data[i] >= '0' && r.data[i] <= '9' {
		i++
		digits++
	}
	text := string(r.data[r.pos:i])
	if digits == 0 || digits > 1 && (text[0] == '0' || text[:2] == "-0") {
		return ""
	}
	return text
}

// Int takes an integer of low to high.
func (r *Reader) Int(low, high int64) int64 {
	if r.err != nil || r.Null() {
		return 0
	}
	text := r.number()
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < low || v > high || r.fraction(len(text)) {
		r.Fail(r.found(), "an integer of "+strconv.FormatInt(low, 10)+" to "+strconv.FormatInt(high, 10))
		return 0
	}
	r.pos += len(text)
	return v
}

// Uint takes an integer of 0 to high.
func (r *Reader) Uint(high uint64) uint64 {
	if r.err != nil || r.Null() {
		return 0
	}
	text := r.number()
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v > high || r.fraction(len(text)) {
		r.Fail(r.found(), "an integer of 0 to "+strconv.FormatUint(high, 10))
		return 0
	}
	r.pos += len(text)
	return v
}

// fraction says whether what follows n bytes on still belongs to a number, so that it is no integer.
func (r *Reader) fraction(n int) bool {
	if i := r.pos + n; i < len(r.data) {
		c := r.data[i]
		return c == '.' || c == 'e' || c == 'E' || c >= '0' && c <= '9'
	}
	return false
}

// Skip takes any value, which has to be correct JSON.
func (r *Reader) Skip() {
	if r.err != nil {
		return
	}
	switch c := r.next(); {
	case c == '{':
		r.Object(func(string) { r.Skip() })
	case c == '[':
		r.Array(r.Skip)
	case c == '"':
		_ = r.String()
	case r.literal("true"), r.literal("false"), r.literal("null"):
	default:
		text := r.number()
		if text == "" {
			r.Fail(r.found(), "a value")
			return
		}
		r.pos += len(text)
		if r.pos < len(r.data) && r.data[r.pos] == '.' {
			r.pos++
			r.digits()
		}
		if r.pos < len(r.data) && (r.data[r.pos] == 'e' || r.data[r.pos] == 'E') {
			r.pos++
			if r.pos < len(r.data) && (r.data[r.pos] == '+' || r.data[r.pos] == '-') {
				r.pos++
			}
			r.digits()
		}
	}
}

func (r *Reader) digits() {
	start := r.pos
	for r.pos < len(r.data) && r.data[r.pos] >= '0' && r.data[r.pos] <= '9' {
		r.pos++
	}
	if r.pos == start {
		r.Fail(r.found(), "a digit")
	}
}

// Quote appends s to b as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func Quote(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ' || c == 0x7f:
			b = append(b, "\\u00"...)
			b = append(b, hexByte(byte(c))...)
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}

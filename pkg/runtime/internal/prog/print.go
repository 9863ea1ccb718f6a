// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"encoding/binary"
	"io"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/initasm"
	"github.com/ctr-tools/ctr/pkg/strictjson"
)

// A line is one op in words.
type line struct {
	what, call, result string
	args, more         []string
}

func (p *Program) line(i int) (l line) {
	o := &p.ops[i]
	if t := p.texts[i]; t.verb != "" {
		l.what = p.What(i)
	}
	l.call = callName(uintptr(o.number))
	last := 6
	for last > 0 && o.args[last-1] == 0 && o.indirect&(1<<(last-1)) == 0 {
		last--
	}
	for j := range last {
		l.args = append(l.args, p.value(o.args[j], o.indirect&(1<<j) != 0))
	}
	if o.result != 0 {
		l.result = slotName(int(o.result) - initasm.SlotsAt/8)
	}
	if o.flags&1 != 0 {
		l.more = append(l.more, "any error is ignored")
	}
	var errnos []string
	for _, e := range o.ignore {
		if e != 0 {
			errnos = append(errnos, unix.ErrnoName(syscall.Errno(e)))
		}
	}
	switch {
	case errnos != nil && o.err == 0:
		l.more = append(l.more, strings.Join(errnos, " ")+": again")
	case errnos != nil && o.err != 1:
		l.more = append(l.more, strings.Join(errnos, " ")+": go to "+strconv.Itoa(i+int(o.err)))
	case errnos != nil:
		l.more = append(l.more, strings.Join(errnos, " ")+" ignored")
	}
	if o.zero != o.ok && o.zero != 1 {
		l.more = append(l.more, "0: go to "+strconv.Itoa(i+int(o.zero)))
	}
	if o.ok != 1 {
		l.more = append(l.more, "done: go to "+strconv.Itoa(i+int(o.ok)))
	}
	return l
}

func slotName(slot int) string {
	if slot < registers {
		return "r" + strconv.Itoa(slot)
	}
	return "s" + strconv.Itoa(slot-registers)
}

// value is an argument as people read it.
func (p *Program) value(a uint64, indirect bool) string {
	slots := slotAddr(0)
	switch {
	case indirect && a >= dataBase:
		return "*data"
	case indirect:
		return slotName(int(a-slots) / 8)
	case a >= slots && a < slots+8*initasm.Slots:
		return "&" + slotName(int(a-slots)/8)
	case a >= dataBase && a < dataBase+uint64(len(p.data))+1:
		return p.datum(uint32(a - dataBase))
	case int64(a) < 0 && int64(a) > -4096:
		return strconv.FormatInt(int64(a), 10)
	case a < 10:
		return strconv.FormatUint(a, 10)
	}
	return "0x" + strconv.FormatUint(a, 16)
}

// datum is the piece of data at an offset.
func (p *Program) datum(at uint32) string {
	i := sort.Search(len(p.pieces), func(i int) bool { return p.pieces[i].at > at }) - 1
	if i < 0 || p.pieces[i].at != at {
		return "data+" + strconv.Itoa(int(at))
	}
	end := uint32(len(p.data))
	if i+1 < len(p.pieces) {
		end = p.pieces[i+1].at
	}
	b := p.data[at:end]
	switch p.pieces[i].kind {
	case 's':
		s, _, _ := strings.Cut(string(b), "\x00")
		return strconv.Quote(s)
	case 'b':
		return "{" + strconv.Itoa(len(b)) + " bytes}"
	}
	var words []string
	for len(b) >= 8 {
		words = append(words, p.value(binary.NativeEndian.Uint64(b), false))
		b = b[8:]
	}
	return "{" + strings.Join(words, " ") + "}"
}

// Print writes the program as text, one op a line.
func (p *Program) Print(w io.Writer) error {
	if err := p.link(); err != nil {
		return err
	}
	var b []byte
	for i := range p.ops {
		l := p.line(i)
		n := strconv.Itoa(i)
		b = append(b, "    "[min(4, len(n)):]...)
		b = append(b, n...)
		b = append(b, "  "...)
		b = append(b, l.call...)
		b = append(b, '(')
		b = append(b, strings.Join(l.args, ", ")...)
		b = append(b, ')')
		if l.result != "" {
			b = append(b, " = "...)
			b = append(b, l.result...)
		}
		for _, m := range l.more {
			b = append(b, "; "...)
			b = append(b, m...)
		}
		if l.what != "" {
			b = append(b, "  # "...)
			b = append(b, l.what...)
		}
		b = append(b, '\n')
	}
	_, err := w.Write(b)
	return err
}

// PrintJSON writes the program as one JSON object a line.
func (p *Program) PrintJSON(w io.Writer) error {
	if err := p.link(); err != nil {
		return err
	}
	var b []byte
	list := func(key string, values []string) {
		b = append(b, `,"`+key+`":[`...)
		for i, v := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = strictjson.Quote(b, v)
		}
		b = append(b, ']')
	}
	for i := range p.ops {
		l := p.line(i)
		b = append(b, `{"op":`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, `,"what":`...)
		b = strictjson.Quote(b, l.what)
		b = append(b, `,"call":`...)
		b = strictjson.Quote(b, l.call)
		list("args", l.args)
		if l.result != "" {
			b = append(b, `,"result":`...)
			b = strictjson.Quote(b, l.result)
		}
		if l.more != nil {
			list("more", l.more)
		}
		b = append(b, "}\n"...)
	}
	_, err := w.Write(b)
	return err
}

// SPDX-License-Identifier: Apache-2.0

// Package log owns the log contract (spec/log.md, ctr-log(5)): what a container wrote, one record a line in
// the CRI log format, rotated by size.
//
//	2026-01-02T15:04:05.999999999Z stdout F text
//
// [Writer] splits a stream into records, [Read] gives records back and follows a log over its rotations.
// The package never interprets text and never starts a process.
package log

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Stream is where a record's text was written.
type Stream string

// The streams of a container. A container with a terminal has Stdout only.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Limits of the format (spec/log.md, Records).
const (
	MaxTextBytes   = 16 << 10          // longer lines are cut into partial records
	maxRecordBytes = MaxTextBytes + 64 // with time, stream and tag
	timeLayout     = "2006-01-02T15:04:05.000000000Z"
)

// A Record is one line of a log.
type Record struct {
	Time    time.Time
	Stream  Stream
	Partial bool   // no newline followed Text in the stream
	Text    []byte // without newline; any other bytes
}

// Append appends the record's line, newline included, to b.
func (r Record) Append(b []byte) []byte {
	b = r.Time.UTC().AppendFormat(b, timeLayout)
	b = append(b, ' ')
	b = append(b, r.Stream...)
	if r.Partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	b = append(b, r.Text...)
	return append(b, '\n')
}

// AppendRaw appends the bytes that the container wrote: the text, and its newline unless the record is partial.
func (r Record) AppendRaw(b []byte) []byte {
	b = append(b, r.Text...)
	if !r.Partial {
		b = append(b, '\n')
	}
	return b
}

// Parse reads one line without its newline. Text shares memory with line. It takes what any CRI runtime
// writes: any RFC 3339 time, and tags after the first, separated by colons, which it ignores.
func Parse(line []byte) (Record, error) {
	var r Record
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return r, fmt.Errorf("log record: found %s, want TIME STREAM TAG TEXT", clip(line))
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return r, fmt.Errorf("log record: time %s: want RFC 3339 with nanoseconds", clip(stamp))
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	switch {
	case ok && string(stream) == string(Stdout):
		r.Stream = Stdout
	case ok && string(stream) == string(Stderr):
		r.Stream = Stderr
	default:
		return r, fmt.Errorf("log record: stream %s, want stdout or stderr", clip(stream))
	}
	tags, text, ok := bytes.Cut(rest, []byte{' '})
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	if !ok || len(tag) != 1 || tag[0] != 'P' && tag[0] != 'F' {
		return r, fmt.Errorf("log record: tag %s, want P or F", clip(tags))
	}
	if bytes.IndexByte(text, '\n') >= 0 {
		return r, fmt.Errorf("log record: newline in the text")
	}
	r.Time, r.Partial, r.Text = t, tag[0] == 'P', text
	return r, nil
}

func clip(b []byte) string {
	if len(b) > 40 {
		return strconv.Quote(string(b[:40])) + "…"
	}
	return strconv.Quote(string(b))
}

// ParseTime reads a point in time as users give it: an RFC 3339 time with or without zone and fractions, a date, seconds
// since 1970, or a duration before now ("10m").
func ParseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	if sec, err := strconv.ParseInt(whole, 10, 64); err == nil && sec >= 0 && len(fraction) <= 9 {
		nsec, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
		if err == nil {
			return time.Unix(sec, int64(nsec)), nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q: want 2026-01-02T15:04:05Z, seconds since 1970 or a duration such as 10m", s)
}

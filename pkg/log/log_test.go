// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 5, time.UTC)

func read(t *testing.T, path string, opt ReadOptions) (got []string) {
	t.Helper()
	err := Read(t.Context(), path, opt, func(r Record) error {
		tag := "F"
		if r.Partial {
			tag = "P"
		}
		got = append(got, string(r.Stream)+" "+tag+" "+string(r.Text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func writer(t *testing.T, path string, opt WriterOptions) *Writer {
	t.Helper()
	w, err := OpenWriter(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestFormat(t *testing.T) {
	r := Record{Time: noon, Stream: Stderr, Text: []byte("a b \x00\xff")}
	got := string(r.Append(nil))
	if want := "2026-01-02T12:00:00.000000005Z stderr F a b \x00\xff\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLinesAndPartials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := writer(t, path, WriterOptions{})
	long := strings.Repeat("x", MaxTextBytes)
	for _, p := range []string{"one\ntw", "o\n\n", long, "\n", long + "y", "z\nend"} {
		if err := w.Write(Stdout, noon, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Write(Stderr, noon, []byte("e\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, read(t, path, ReadOptions{}), "stdout F one", "stdout F two", "stdout F ", "stdout F "+long,
		"stdout P "+long, "stdout F yz", "stderr F e", "stdout P end")

	// The next run's first line is a line of its own (spec/log.md, Runs).
	w = writer(t, path, WriterOptions{})
	w.Write(Stdout, noon, []byte("again\n"))
	w.Close()
	got := read(t, path, ReadOptions{})
	equal(t, got[len(got)-3:], "stdout P end", "stdout F ", "stdout F again")
}

// What a container wrote comes out byte for byte, whatever the reads it arrived in, over rotations.
func TestBytesExact(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "log")
		w := writer(t, path, WriterOptions{SizeBytes: 200 << 10, Files: 90})
		want := map[Stream]*bytes.Buffer{Stdout: {}, Stderr: {}}
		for range 60 {
			s := []Stream{Stdout, Stderr}[rnd.Intn(2)]
			p := make([]byte, rnd.Intn(70_000))
			rnd.Read(p)
			if rnd.Intn(2) == 0 {
				p = bytes.ReplaceAll(p, []byte{'\n'}, []byte{' '})
			}
			want[s].Write(p)
			if err := w.Write(s, noon, p); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := map[Stream][]byte{}
		if err := Read(t.Context(), path, ReadOptions{}, func(r Record) error {
			got[r.Stream] = r.AppendRaw(got[r.Stream])
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for s, b := range want {
			if !bytes.Equal(got[s], b.Bytes()) {
				t.Fatalf("round %d: %s: %d bytes, want %d the same", round, s, len(got[s]), b.Len())
			}
		}
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	w := writer(t, path, WriterOptions{SizeBytes: 1000, Files: 3})
	for i := range 500 {
		if err := w.Write(Stdout, noon, fmt.Appendf(nil, "line %d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if st, _ := e.Info(); st.Size() > 1000 {
			t.Errorf("%s: %d bytes, want at most 1000", e.Name(), st.Size())
		}
	}
	if len(entries) != 3 {
		t.Errorf("%d files, want 3", len(entries))
	}
	got := read(t, path, ReadOptions{})
	if got[len(got)-1] != "stdout F line 499" || len(got) < 40 {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
	equal(t, read(t, path, ReadOptions{Tail: 2}), "stdout F line 498", "stdout F line 499")
	if got := read(t, path, ReadOptions{Tail: 45}); len(got) != 45 || got[0] != "stdout F line 455" {
		t.Errorf("tail over a rotation: %d lines from %q", len(got), got[0])
	}
	equal(t, read(t, path, ReadOptions{Tail: -1}))
}

func TestTail(t *testing.T) {
	const content = "2026-01-02T12:00:00Z stdout F one\ngarbage\n2026-01-02T12:00:01.5Z stdout P tw\n" +
		"2026-01-02T12:00:02Z stdout F o\n2026-01-02T12:00:03Z stderr F three\n2026-01-02T12:00:04Z stdout P open\n"
	path := filepath.Join(t.TempDir(), "log")
	os.WriteFile(path, []byte(content), 0o600)
	for n, want := range map[int][]string{
		1: {"stdout P open"},
		2: {"stderr F three", "stdout P open"},
		3: {"stdout P tw", "stdout F o", "stderr F three", "stdout P open"},
		9: {"stdout F one", "stdout P tw", "stdout F o", "stderr F three", "stdout P open"},
	} {
		equal(t, read(t, path, ReadOptions{Tail: n}), want...)
	}
	at := func(s string) time.Time {
		at, err := ParseTime(s, noon)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	equal(t, read(t, path, ReadOptions{Since: at("2026-01-02T12:00:02Z"), Until: at("2026-01-02T12:00:04Z")}), "stdout F o", "stderr F three")
	long := strings.Repeat("2026-01-02T12:00:00Z stdout F "+strings.Repeat("y", 9000)+"\n", 40)
	os.WriteFile(path, []byte(long), 0o600)
	if got := read(t, path, ReadOptions{Tail: 33}); len(got) != 33 {
		t.Errorf("%d lines, want 33", len(got))
	}
}

// A reader that follows sees every record once, in order, while the log rotates under it.
func TestFollowOverRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	done := make(chan struct{})
	const lines = 5000
	go func() {
		defer close(done)
		time.Sleep(20 * time.Millisecond) // also start before the log exists
		w, err := OpenWriter(path, WriterOptions{SizeBytes: 4000, Files: 50})
		if err != nil {
			t.Error(err)
			return
		}
		defer w.Close()
		for i := range lines {
			w.Write(Stdout, time.Now(), fmt.Appendf(nil, "line %d\n", i))
			if i%40 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	n := 0
	err := Read(t.Context(), path, ReadOptions{Follow: true, Done: done}, func(r Record) error {
		if want := fmt.Sprintf("line %d", n); string(r.Text) != want {
			return fmt.Errorf("got %q, want %q", r.Text, want)
		}
		n++
		return nil
	})
	if err != nil || n != lines {
		t.Errorf("%d lines, want %d: %v", n, lines, err)
	}
}

func TestFollowStops(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := Read(ctx, filepath.Join(dir, "log"), ReadOptions{Follow: true}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := Read(t.Context(), filepath.Join(dir, "log"), ReadOptions{Follow: true, Until: time.Now().Add(50 * time.Millisecond)}, nil); err != nil {
		t.Error(err)
	}
	if err := Read(t.Context(), filepath.Join(dir, "log"), ReadOptions{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A writer killed in the middle of a record, and links in the log's place.
func TestOpenAfterCrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	os.WriteFile(path, []byte("2026-01-02T12:00:00Z stdout F one\n2026-01-02T12:00:0"), 0o600)
	w := writer(t, path, WriterOptions{})
	w.Write(Stdout, noon, []byte("two\n"))
	w.Close()
	equal(t, read(t, path, ReadOptions{}), "stdout F one", "stdout F two")

	victim := filepath.Join(dir, "victim")
	os.WriteFile(victim, []byte("precious"), 0o600)
	link := filepath.Join(dir, "link")
	os.Symlink(victim, link)
	if w, err := OpenWriter(link, WriterOptions{}); err == nil {
		w.Close()
		t.Error("a symbolic link was followed")
	}
	if err := Read(t.Context(), link, ReadOptions{}, nil); err == nil {
		t.Error("a symbolic link was read")
	}
}

func TestParseTime(t *testing.T) {
	for s, want := range map[string]time.Time{
		"10m":                       noon.Add(-10 * time.Minute),
		"2026-01-02T12:00:00Z":      noon.Add(-5),
		"1767355200.000000005":      noon,
		"2026-01-02T13:00:00+01:00": noon.Add(-5),
		"2026-01-02T12:00:00.1Z":    noon.Add(1e8 - 5),
		"1767355200":                noon.Add(-5),
	} {
		if got, err := ParseTime(s, noon); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "yesterday", "-5", "1.0000000001", "12:00"} {
		if got, err := ParseTime(s, noon); err == nil {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"2026-01-02T15:04:05.999999999Z stdout F text", "2016-10-06T00:17:09.669794202Z stderr P:x log", "", "a b c d"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(bytes.TrimSuffix(r.Append(nil), []byte{'\n'}))
		if r.Time.Year() < 0 || r.Time.UTC().Year() > 9999 || r.Time.UTC().Year() < 0 {
			return // the zone moved it out of RFC 3339
		}
		if err != nil || !again.Time.Equal(r.Time) || again.Stream != r.Stream || again.Partial != r.Partial || !bytes.Equal(again.Text, r.Text) {
			t.Errorf("%q: %v, written and read: %v, %v", line, r, again, err)
		}
	})
}

// A full disk costs records and never leaves half of one; once there is room again, the log goes on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIP: mount a tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "log")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 30_000), 0o600); err != nil {
		t.Fatal(err)
	}
	w := writer(t, path, WriterOptions{})
	line := []byte(strings.Repeat("x", 700) + "\n")
	var failed error
	for i := 0; i < 200 && failed == nil; i++ {
		failed = w.Write(Stdout, noon, line)
	}
	if !errors.Is(failed, unix.ENOSPC) {
		t.Fatalf("%v, want ENOSPC", failed)
	}
	os.Remove(filler)
	if err := w.Write(Stdout, noon, []byte("again\n")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(data) {
		if _, err := Parse(bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
			t.Errorf("line %d: %v", n, err)
		}
		n++
	}
	if !bytes.HasSuffix(data, []byte(" stdout F again\n")) {
		t.Errorf("%d lines, the last is not the last written", n)
	}
}

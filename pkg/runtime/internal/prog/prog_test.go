// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// everything uses each feature of the interpreter: an ignored error and its jump, a stored result, an indirect
// argument, a jump on zero and on success, a scratch word, a loop, and a failure that is reported.
func everything() *Program {
	p := New()
	r := p.Reg()
	over, zero, again, done := p.NewLabel(), p.NewLabel(), p.NewLabel(), p.NewLabel()
	p.Do("copy", "nothing", unix.SYS_FCNTL, 999, unix.F_DUPFD, 0).Ignore(syscall.EPERM, syscall.EBADF).Err(over)
	p.Do("", "", unix.SYS_EXIT_GROUP, 99)
	p.Here(over)
	p.Do("copy", "stdout", unix.SYS_FCNTL, 1, unix.F_DUPFD, 0).Into(r)
	p.Do("write", "hi", unix.SYS_WRITE, r.Arg(), p.Str("hi\n"), 3)
	p.Do("write", "nothing", unix.SYS_WRITE, 1, p.Str(""), 0).Zero(zero)
	p.Do("", "", unix.SYS_EXIT_GROUP, 98)
	p.Here(zero)
	s := p.Scratch(uint64('x') | '\n'<<8)
	p.Do("write", "x", unix.SYS_WRITE, 1, s.Addr(0), 2).IntoScratch(s, 0)
	p.Here(again)
	p.Do("", "", unix.SYS_CLOSE, r.Arg()).IgnoreAll().Err(done) // once, then EBADF
	p.Do("", "", unix.SYS_GETPID).OK(again)
	p.Here(done)
	p.Do("copy", "nothing", unix.SYS_FCNTL, 998, unix.F_DUPFD, 0)
	return p
}

func checkEverything(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, _ := cmd.Output()
	report := stderr.Bytes()
	if string(out) != "hi\nx\n" || cmd.ProcessState.ExitCode() != 127 || len(report) != 8 {
		t.Fatalf("printed %q, status %d, report %x", out, cmd.ProcessState.ExitCode(), report)
	}
	err := everything().Fault(int(binary.NativeEndian.Uint32(report)), syscall.Errno(binary.NativeEndian.Uint32(report[4:])))
	if want := "copy nothing: bad file descriptor"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestExecute(t *testing.T) {
	elf, err := everything().ELF(2)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, elf, 0o755); err != nil {
		t.Fatal(err)
	}
	checkEverything(t, exec.Command(path))
	fd, err := File(elf, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if fd < floor(nil) {
		t.Errorf("descriptor %d, want at least %d", fd, floor(nil))
	}
	name := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(fd)
	checkEverything(t, exec.Command(name))
	if f, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
		if _, err := f.Write([]byte("x")); err == nil {
			t.Error("the sealed program can be changed")
		}
		f.Close()
	}
}

func TestTempFile(t *testing.T) {
	elf, err := everything().ELF(2)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := tempFile(elf, nil, []string{"/proc", t.TempDir()})
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	defer syscall.Close(fd)
	checkEverything(t, exec.Command("/proc/"+strconv.Itoa(os.Getpid())+"/fd/"+strconv.Itoa(fd)))
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	if err := everything().Print(&b); err != nil {
		t.Fatal(err)
	}
	want := `   0  fcntl(0x3e7); EPERM EBADF: go to 2  # copy nothing
   1  exit_group(0x63)
   2  fcntl(1) = r1  # copy stdout
   3  write(r1, "hi\n", 3)  # write hi
   4  write(1, "")  # write nothing
`
	if got := b.String(); !strings.HasPrefix(got, want[:strings.Index(want, "   4")]) || strings.Count(got, "\n") != 10 {
		t.Errorf("got\n%s", got)
	}
}

func TestJumpTooFar(t *testing.T) {
	p := New()
	l := p.NewLabel()
	p.Do("", "", unix.SYS_GETPID).OK(l)
	for range 40000 {
		p.Do("", "", unix.SYS_GETPID)
	}
	p.Here(l)
	if _, err := p.ELF(2); err == nil || !strings.Contains(err.Error(), "want at most 32767") {
		t.Errorf("got %v", err)
	}
}

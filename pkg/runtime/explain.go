// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
)

// explain says why a program cannot be executed, by looking at the container's files through a process that is
// in it. It returns nil where it sees no reason. The words of the first two cases are those that engines look
// for in runc's messages.
func explain(pid int, p *specs.Process) error {
	root, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer root.Close()
	open := func(path string, flags uint64) (*os.File, error) {
		if !strings.HasPrefix(path, "/") {
			path = p.Cwd + "/" + path
		}
		fd, err := unix.Openat2(int(root.Fd()), strings.TrimLeft(path, "/"), &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	name := p.Args[0]
	paths, searched := compile.Candidates(p)
	for _, path := range paths {
		f, err := open(path, unix.O_PATH)
		if err != nil {
			if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EACCES) {
				return fmt.Errorf("%q: %w", path, err)
			}
			continue
		}
		st, err := f.Stat()
		f.Close()
		if err != nil {
			continue
		}
		if st.IsDir() {
			if searched != "" {
				continue
			}
			return fmt.Errorf("%q: is a directory: %w", path, syscall.EACCES)
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%q: is no regular file (%v): %w", path, st.Mode().Type(), syscall.EACCES)
		}
		if st.Mode().Perm()&0o111 == 0 {
			if searched != "" {
				continue
			}
			return fmt.Errorf("%q: mode %04o has no x: %w", path, st.Mode().Perm(), syscall.EACCES)
		}
		if r, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
			why := explainFile(r, path, open)
			r.Close()
			return why
		}
		return nil
	}
	if searched != "" {
		return fmt.Errorf("%q: executable file not found in $PATH (%s)%w", name, searched, quiet{syscall.ENOENT})
	}
	return fmt.Errorf("%q: stat %s: %w", name, name, syscall.ENOENT)
}

// An ExecError says why the user's program could not be executed. It is a failure of the start, whatever kind of
// error is behind it: a missing program is not a missing container.
type ExecError struct{ err error }

func (e *ExecError) Error() string { return "exec: " + e.err.Error() }

// Unwrap returns the cause.
func (e *ExecError) Unwrap() error { return e.err }

// ExitStatus is what runc's callers expect.
func (e *ExecError) ExitStatus() int { return 1 }

// quiet is an error that adds its kind and no text.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// explainFile looks at the head of an executable file for what the kernel needs besides.
func explainFile(f *os.File, path string, open func(string, uint64) (*os.File, error)) error {
	head := make([]byte, 256)
	n, _ := f.ReadAt(head, 0)
	head = head[:n]
	missing := func(kind, interpreter string) error {
		i, err := open(interpreter, unix.O_PATH)
		if err == nil {
			i.Close()
			return nil
		}
		return fmt.Errorf("%q: its %s %s: %w", path, kind, interpreter, err)
	}
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		words := strings.Fields(string(line))
		if len(words) == 0 {
			return fmt.Errorf("%q: its first line names no interpreter: %w", path, syscall.ENOEXEC)
		}
		if strings.HasSuffix(words[0], "\r") || bytes.HasSuffix(line, []byte("\r")) {
			return fmt.Errorf("%q: its first line ends in a carriage return, so the interpreter is %q: %w", path, words[0]+"\r", syscall.ENOENT)
		}
		return missing("interpreter", words[0])
	}
	if len(head) < 64 || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return fmt.Errorf("%q: neither a program (ELF) nor a script (#!): %w", path, syscall.ENOEXEC)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 { // EI_DATA: ELFDATA2MSB
		order = binary.BigEndian
	}
	if machine := order.Uint16(head[18:]); !runsHere(machine) {
		return fmt.Errorf("%q: is for another machine (%s): %w", path, machineName(machine), syscall.ENOEXEC)
	}
	if head[4] != 2 { // EI_CLASS: ELFCLASS64
		return nil
	}
	at, size, count := order.Uint64(head[32:]), order.Uint16(head[54:]), order.Uint16(head[56:])
	if size < 56 || count > 128 {
		return nil
	}
	for i := range uint64(count) {
		ph := make([]byte, 56)
		if _, err := f.ReadAt(ph, int64(at+i*uint64(size))); err != nil {
			return nil
		}
		if order.Uint32(ph) != 3 /* PT_INTERP */ {
			continue
		}
		loader := make([]byte, min(order.Uint64(ph[32:]), 4096))
		if _, err := f.ReadAt(loader, int64(order.Uint64(ph[8:]))); err != nil {
			return nil
		}
		return missing("loader", strings.TrimRight(string(loader), "\x00"))
	}
	return nil
}

// Values of e_machine.
const (
	machine386   = 3
	machineARM   = 40
	machineX8664 = 62
	machineARM64 = 183
)

// runsHere leaves machines that it does not know to the kernel: binfmt_misc may run them.
func runsHere(machine uint16) bool {
	switch machine {
	case machine386, machineX8664:
		return runtime.GOARCH == "amd64"
	case machineARM, machineARM64:
		return runtime.GOARCH == "arm64"
	}
	return true
}

func machineName(machine uint16) string {
	return map[uint16]string{machine386: "386", machineARM: "arm", machineX8664: "amd64", machineARM64: "arm64"}[machine]
}

// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/initasm"
)

const (
	page     = 4096
	elfHead  = 64
	elfEntry = 56
	segments = 4
)

// ELF lays the program out as a static executable that reports to a descriptor.
func (p *Program) ELF(report int) ([]byte, error) {
	if err := p.link(); err != nil {
		return nil, err
	}
	code := initasm.Code()
	const codeAt = elfHead + segments*elfEntry
	progLen := initasm.OpsAt + initasm.OpBytes*len(p.ops)
	dataAt := page + (progLen+page-1)&^(page-1)
	f := make([]byte, dataAt+len(p.data))
	le := binary.NativeEndian

	machine := uint16(62) // EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = 183 // EM_AARCH64
	}
	copy(f, "\x7fELF\x02\x01\x01\x00")
	le.PutUint16(f[16:], 2) // ET_EXEC
	le.PutUint16(f[18:], machine)
	le.PutUint32(f[20:], 1)
	le.PutUint64(f[24:], codeBase+codeAt)
	le.PutUint64(f[32:], elfHead)
	le.PutUint16(f[52:], elfHead)
	le.PutUint16(f[54:], elfEntry)
	le.PutUint16(f[56:], segments)
	segment := func(i int, kind, flags uint32, at, address, size int) {
		b := f[elfHead+elfEntry*i:]
		le.PutUint32(b, kind)
		le.PutUint32(b[4:], flags)
		le.PutUint64(b[8:], uint64(at))
		le.PutUint64(b[16:], uint64(address))
		le.PutUint64(b[24:], uint64(address))
		le.PutUint64(b[32:], uint64(size))
		le.PutUint64(b[40:], uint64(size))
		le.PutUint64(b[48:], page)
	}
	const load, gnuStack, x, w, r = 1, 0x6474e551, 1, 2, 4
	segment(0, load, r|x, 0, codeBase, codeAt+len(code))
	segment(1, load, r|w, page, initasm.Base, progLen)
	segment(2, load, r|w, dataAt, dataBase, len(p.data))
	segment(3, gnuStack, r|w, 0, 0, 0)

	copy(f[codeAt:], code)
	le.PutUint64(f[page:], uint64(report))
	for i, v := range p.slots {
		le.PutUint64(f[page+initasm.SlotsAt+8*i:], v)
	}
	if len(p.ops) > 0 {
		copy(f[page+initasm.OpsAt:], unsafe.Slice((*byte)(unsafe.Pointer(&p.ops[0])), initasm.OpBytes*len(p.ops)))
	}
	copy(f[dataAt:], p.data)
	return f, nil
}

// floor is the lowest number that no descriptor of a child gets, not even for a moment, while syscall.ForkExec
// renumbers: it moves those that are in the way, and its own pipe, to behind all others. It is kept low, because a
// table of descriptors that several threads share grows beyond 64 only after an RCU grace period, some 10 ms.
func floor(files []uintptr) int {
	top := len(files)
	for _, fd := range files {
		top = max(top, int(fd))
	}
	return top + 1 + len(files) + 2
}

// File puts an executable into a sealed memfd, so that nobody who reaches it through /proc can change it. Where
// memfds cannot be executed (sysctl vm.memfd_noexec=2) it is an unlinked file in one of dirs. Its descriptor is out
// of the way of files, those that the child will be given.
func File(elf []byte, files []uintptr, dirs ...string) (fd int, err error) {
	fd, err = unix.MemfdCreate("ctr-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 there was no MFD_EXEC
		fd, err = unix.MemfdCreate("ctr-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err == unix.EACCES {
		return tempFile(elf, files, dirs)
	}
	if err != nil {
		return -1, errors.New("memfd_create: " + err.Error())
	}
	if err := writeAll(fd, elf); err != nil {
		syscall.Close(fd)
		return -1, errors.New("write the program: " + err.Error())
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		syscall.Close(fd)
		return -1, errors.New("seal the program: " + err.Error())
	}
	return raise(fd, floor(files))
}

// raise moves a descriptor to a number of floor or more.
func raise(fd, floor int) (int, error) {
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, floor)
	syscall.Close(fd)
	if err == unix.EINVAL || err == unix.EMFILE {
		return -1, errors.New("descriptor for the program: " + strconv.Itoa(floor) + " are in use: raise the limit of open files")
	}
	if err != nil {
		return -1, errors.New("descriptor for the program: " + err.Error())
	}
	return high, nil
}

func tempFile(elf []byte, files []uintptr, dirs []string) (int, error) {
	last := errors.New("memfds cannot be executed here (vm.memfd_noexec), and no directory is left to try")
	for _, dir := range dirs {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Flags&unix.ST_NOEXEC != 0 {
			continue
		}
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o500)
		if err != nil {
			last = errors.New("file for the program in " + dir + ": " + err.Error())
			continue
		}
		err = writeAll(fd, elf)
		if err == nil {
			// A file that is open for writing cannot be executed.
			var ro int
			ro, err = unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			syscall.Close(fd)
			if err == nil {
				return raise(ro, floor(files))
			}
		} else {
			syscall.Close(fd)
		}
		last = errors.New("file for the program in " + dir + ": " + err.Error())
	}
	return -1, last
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

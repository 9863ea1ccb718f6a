// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupOf returns the directory of a process's cgroup in a version 1 hierarchy with the controller, or in version 2.
func cgroupOf(pid int, controller string) (dir string, v2 bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if controllers == "" { // 0::/path, always the last line
			return filepath.Join("/sys/fs/cgroup", path), true
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if c == controller {
				return filepath.Join("/sys/fs/cgroup", controllers, path), false
			}
		}
	}
	return "", false
}

// An oomWatch counts the processes of a run that the kernel killed for want of memory.
type oomWatch struct{ file string }

// watchOOM remembers a container's cgroup, which outlives its process. The run's cgroup is its own: the count starts at 0.
func watchOOM(pid int) oomWatch {
	dir, v2 := cgroupOf(pid, "memory")
	own, _ := cgroupOf(os.Getpid(), "memory")
	switch {
	case dir == "" || dir == own:
		return oomWatch{}
	case v2:
		return oomWatch{filepath.Join(dir, "memory.events")}
	}
	return oomWatch{filepath.Join(dir, "memory.oom_control")}
}

// killed reads the line "oom_kill N", which both versions have.
func (o oomWatch) killed() bool {
	if o.file == "" {
		return false
	}
	data, err := os.ReadFile(o.file)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		if n, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			return string(bytes.TrimSpace(n)) != "0"
		}
	}
	return false
}

// frozen says whether a process's cgroup is frozen or being frozen.
func frozen(pid int) bool {
	dir, v2 := cgroupOf(pid, "freezer")
	if dir == "" {
		return false
	}
	if v2 {
		data, _ := os.ReadFile(filepath.Join(dir, "cgroup.freeze"))
		return string(bytes.TrimSpace(data)) == "1"
	}
	data, _ := os.ReadFile(filepath.Join(dir, "freezer.state"))
	state := string(bytes.TrimSpace(data))
	return state == "FROZEN" || state == "FREEZING"
}

// releaseMemory gives back what starting took: the free heap, and the pages of the program file that were
// only needed for that. The kernel maps a page of the file again when it is used.
func releaseMemory() {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1][1] == 'w' || f[1][0] != 'r' || f[5] != exe {
			continue // never a page that may have been written to
		}
		from, to, _ := strings.Cut(f[0], "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && b > a {
			unix.Syscall(unix.SYS_MADVISE, uintptr(a), uintptr(b-a), unix.MADV_DONTNEED)
		}
	}
}

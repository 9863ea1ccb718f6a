// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/image"
)

// A child of the test binary loads the filter and makes calls. It gets both as JSON in this variable.
const childVar = "CTR_SECCOMP_CHILD"

type job struct {
	Profile *specs.LinuxSeccomp
	Calls   [][7]uint64 // number and arguments
}

func TestMain(m *testing.M) {
	if v := os.Getenv(childVar); v != "" {
		child(v)
	}
	os.Exit(m.Run())
}

// child prints one errno (0: success) for each call.
func child(v string) {
	var j job
	if err := json.Unmarshal([]byte(v), &j); err != nil {
		panic(err)
	}
	f, err := Compile(j.Profile)
	if err != nil {
		panic(err)
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	errnos := make([]byte, len(j.Calls))
	fprog := unix.SockFprog{Len: uint16(len(f.Prog) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Prog[0]))}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&fprog))); e != 0 {
		panic(e)
	}
	for i, c := range j.Calls {
		_, _, e := unix.RawSyscall6(uintptr(c[0]), uintptr(c[1]), uintptr(c[2]), uintptr(c[3]), uintptr(c[4]), uintptr(c[5]), uintptr(c[6]))
		errnos[i] = byte(e)
	}
	unix.RawSyscall(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&errnos[0])), uintptr(len(errnos)))
	unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
}

func run(t *testing.T, s *specs.LinuxSeccomp, calls ...[7]uint64) ([]byte, *os.ProcessState) {
	t.Helper()
	v, err := json.Marshal(job{s, calls})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+string(v))
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil && strings.Contains(msg.String(), "panic") {
		t.Fatalf("%v\n%s", err, msg.String())
	}
	return out.Bytes(), cmd.ProcessState
}

func TestKernelDefaultPolicy(t *testing.T) {
	bad := ^uint64(0)
	calls := [][7]uint64{
		{unix.SYS_GETPID},
		{unix.SYS_MOUNT},
		{unix.SYS_CLONE, unix.CLONE_NEWUSER},
		{unix.SYS_CLONE3, 0, 0},
		{unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0},
		{unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		{unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		{unix.SYS_PERSONALITY, 0xffffffff},
		{unix.SYS_PERSONALITY, 0x0400000},
		{unix.SYS_KEYCTL, 0, bad},
		{490},
		{unix.SYS_CLOSE, bad},
	}
	got, state := run(t, image.DefaultSeccomp(nil), calls...)
	want := []byte{0, 1, 1, 38, 0, 1, 1, 0, 1, 1, 38, 9}
	if !bytes.Equal(got, want) {
		t.Errorf("errnos %v, want %v (%v)", got, want, state)
	}
	got, _ = run(t, image.DefaultSeccomp([]string{"CAP_SYS_ADMIN"}), [7]uint64{unix.SYS_MOUNT}, [7]uint64{unix.SYS_CLONE3, 0, 0})
	if want := []byte{14, 22}; !bytes.Equal(got, want) { // EFAULT, EINVAL: from the calls themselves
		t.Errorf("with CAP_SYS_ADMIN: errnos %v, want %v", got, want)
	}
}

func TestKernelActions(t *testing.T) {
	e := uint(77)
	with := func(a specs.LinuxSeccompAction, e *uint) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getppid"}, Action: a, ErrnoRet: e}}}
	}
	for _, c := range []struct {
		action specs.LinuxSeccompAction
		e      *uint
		errno  byte
		signal syscall.Signal
	}{
		{specs.ActErrno, nil, 1, 0},
		{specs.ActErrno, &e, 77, 0},
		{specs.ActLog, nil, 0, 0},
		{specs.ActTrace, nil, 38, 0}, // no tracer
		{specs.ActKillProcess, nil, 0, syscall.SIGSYS},
		{specs.ActTrap, nil, 0, syscall.SIGSYS},
	} {
		got, state := run(t, with(c.action, c.e), [7]uint64{unix.SYS_GETPPID})
		ws := state.Sys().(syscall.WaitStatus)
		if c.signal == 0 && (len(got) != 1 || got[0] != c.errno) {
			t.Errorf("%s: %v, %v; want errno %d", c.action, got, state, c.errno)
		}
		// Go's own handler makes exit status 2 of a trap.
		if c.signal != 0 && !(ws.Signaled() && ws.Signal() == c.signal) && !(c.action == specs.ActTrap && ws.ExitStatus() == 2) {
			t.Errorf("%s: %v, want %v", c.action, state, c.signal)
		}
	}
}

func TestKernelOperators(t *testing.T) {
	const v = 5<<32 | 7
	for op, want := range map[specs.LinuxSeccompOperator]string{
		specs.OpEqualTo: "---x---", specs.OpNotEqual: "xxx-xxx", specs.OpLessThan: "xxx----", specs.OpLessEqual: "xxxx---",
		specs.OpGreaterThan: "----xxx", specs.OpGreaterEqual: "---xxxx",
	} {
		s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getppid"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Index: 5, Value: v, Op: op}}}}}
		var calls [][7]uint64
		for _, x := range []uint64{7, 4<<32 | 9, v - 1, v, v + 1, 6<<32 | 1, ^uint64(0)} {
			calls = append(calls, [7]uint64{unix.SYS_GETPPID, 0, 0, 0, 0, 0, x})
		}
		out, _ := run(t, s, calls...)
		got := ""
		for _, e := range out {
			got += string("-x"[e])
		}
		if got != want {
			t.Errorf("%s: %s, want %s", op, got, want)
		}
	}
}

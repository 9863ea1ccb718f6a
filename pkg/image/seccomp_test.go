// SPDX-License-Identifier: Apache-2.0

package image

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestDefaultSeccomp(t *testing.T) {
	rule := func(s *specs.LinuxSeccomp, name string) (list []specs.LinuxSyscall) {
		for _, c := range s.Syscalls {
			if slices.Contains(c.Names, name) {
				list = append(list, c)
			}
		}
		return list
	}
	plain := defaultSeccomp(nil, "amd64")
	if plain.DefaultAction != specs.ActErrno || *plain.DefaultErrnoRet != 1 {
		t.Errorf("default %s %d, want ERRNO EPERM", plain.DefaultAction, *plain.DefaultErrnoRet)
	}
	for _, n := range []string{"mount", "bpf", "reboot", "unshare", "setns", "keyctl", "add_key", "userfaultfd", "io_uring_setup", "open_by_handle_at", "kexec_load", "init_module"} {
		if r := rule(plain, n); r != nil {
			t.Errorf("%s is allowed to a container without capabilities: %v", n, r)
		}
	}
	if r := rule(plain, "clone3"); len(r) != 1 || r[0].Action != specs.ActErrno || *r[0].ErrnoRet != 38 {
		t.Errorf("clone3: %v, want ENOSYS", r)
	}
	if r := rule(plain, "clone"); len(r) != 1 || len(r[0].Args) != 1 || r[0].Args[0].Value != 0x7e020000 {
		t.Errorf("clone: %v, want a test of the namespace flags", r)
	}
	if r := rule(plain, "socket"); len(r) != 7 || r[0].Args[0].Value != 38 {
		t.Errorf("socket: %v", r)
	}
	for _, g := range grants {
		s := defaultSeccomp([]string{"CAP_CHOWN", g.capability}, "amd64")
		for n := range strings.FieldsSeq(g.calls) {
			if r := rule(s, n); len(r) != 1 || r[0].Action != specs.ActAllow || r[0].Args != nil {
				t.Errorf("%s with %s: %v, want one rule that allows", n, g.capability, r)
			}
		}
	}
	if a := defaultSeccomp(nil, "arm64"); len(rule(a, "arch_prctl")) != 0 || len(rule(a, "set_tls")) != 1 || !slices.Equal(a.Architectures, []specs.Arch{specs.ArchAARCH64, specs.ArchARM}) {
		t.Errorf("arm64: %v", a.Architectures)
	}
}

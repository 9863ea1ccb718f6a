// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/image"
)

// oldNewest is the newest call that every libseccomp in use knows (2.5.4).
const oldNewest = 448

func libseccomp(t *testing.T) func(s *specs.LinuxSeccomp) []byte {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIP: libseccomp would make a filter for " + runtime.GOARCH)
	}
	if _, err := os.Stat("/usr/include/seccomp.h"); err != nil {
		t.Skip("SKIP: needs libseccomp-dev")
	}
	bin := filepath.Join(t.TempDir(), "libseccomp")
	if out, err := exec.Command("cc", "-o", bin, "testdata/libseccomp.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Skipf("SKIP: needs a C compiler: %v\n%s", err, out)
	}
	arch := map[specs.Arch]string{specs.ArchX86: "x86", specs.ArchX86_64: "x86_64", specs.ArchX32: "x32", specs.ArchAARCH64: "aarch64", specs.ArchARM: "arm"}
	op := map[specs.LinuxSeccompOperator]int{specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3, specs.OpEqualTo: 4,
		specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7}
	return func(s *specs.LinuxSeccomp) []byte {
		var in strings.Builder
		def, _ := action(s.DefaultAction, s.DefaultErrnoRet)
		fmt.Fprintln(&in, "default", def)
		for _, a := range s.Architectures {
			fmt.Fprintln(&in, "arch", arch[a])
		}
		for _, r := range s.Syscalls {
			ret, _ := action(r.Action, r.ErrnoRet)
			for _, n := range r.Names {
				if ret == def {
					continue
				}
				fmt.Fprint(&in, "rule ", ret, " ", n, " ", len(r.Args))
				for _, x := range r.Args {
					fmt.Fprint(&in, " ", x.Index, " ", op[x.Op], " ", x.Value, " ", x.ValueTwo)
				}
				fmt.Fprintln(&in)
			}
		}
		cmd := exec.Command(bin)
		cmd.Stdin = strings.NewReader(in.String())
		var msg strings.Builder
		cmd.Stderr = &msg
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("libseccomp: %v: %s", err, msg.String())
		}
		return out
	}
}

func compareLib(t *testing.T, lib func(*specs.LinuxSeccomp) []byte, s *specs.LinuxSeccomp, step int) {
	t.Helper()
	f, err := compile(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	theirs := lib(s)
	r := read(t, s, "amd64")
	asked := 0
	for _, c := range questions(s, "amd64", step) {
		if nr := c.nr &^ x32Bit; nr > oldNewest && nr < 512 || nr > 547 || nr == 335 || nr == 336 { // uretprobe, uprobe: Linux 6.11 and 7.0
			continue
		}
		if c.arch == auditAMD64 {
			// Numbers above the profile's newest: ENOSYS is ours (and runc's), not the library's.
			for i := range r.abis {
				x32 := r.abis[i].arch == specs.ArchX32
				if r.abis[i].audit == auditAMD64 && x32 == (c.nr&x32Bit != 0) && int32(c.nr&^x32Bit) > r.newest[i] {
					goto next
				}
			}
		} else if c.arch == auditI386 && len(r.abis) > 1 && r.abis[1].arch == specs.ArchX86 && int32(c.nr) > r.newest[1] {
			continue
		}
		asked++
		if got, want := interpret(t, f.Prog, c), interpret(t, theirs, c); got != want && !(got == retKillProcess && want == retKillThread) {
			t.Fatalf("%v: our filter says %#x, libseccomp's %#x", c, got, want)
		}
	next:
	}
	t.Logf("%d calls; %d instructions, libseccomp has %d", asked, len(f.Prog)/8, len(theirs)/8)
}

func TestAgainstLibseccomp(t *testing.T) {
	lib := libseccomp(t)
	compareLib(t, lib, image.DefaultSeccomp(nil), 1)
	compareLib(t, lib, image.DefaultSeccomp([]string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}), 1)
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := random(r)
		s.Architectures = []specs.Arch{specs.ArchX86_64}
		if seed%2 == 0 {
			s.Architectures = append(s.Architectures, specs.ArchX86, specs.ArchX32)
		}
		// Rules that overlap are decided in an order of the library's own: one rule for each call.
		seen := map[string]bool{"socketcall": true, "ipc": true}
		for i := range s.Syscalls {
			c := &s.Syscalls[i]
			var names []string
			for _, n := range c.Names {
				mux, _ := muxed(n)
				if x := lookup(n, -1); x >= 0 && table[x].amd64 < oldNewest && !seen[n] && (mux == "" || len(c.Args) == 0) {
					names = append(names, n)
				}
				seen[n] = true
			}
			if names == nil {
				names = []string{"no_such_call"}
			}
			c.Names = names
			// A repeated argument is runc's business, not the library's.
			args := c.Args
			c.Args = nil
			used := map[uint]bool{}
			for _, a := range args {
				if !used[a.Index] {
					c.Args = append(c.Args, a)
				}
				used[a.Index] = true
			}
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compareLib(t, lib, s, 1) })
	}
}

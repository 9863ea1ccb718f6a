// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"strings"
)

// CapNames are the capabilities by number, without CAP_ (capabilities(7)).
var capNames = [...]string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE"}

// Capabilities is how many are known.
const Capabilities = len(capNames)

// CapName is the name of a capability with CAP_.
func CapName(n int) string {
	if n < len(capNames) {
		return "CAP_" + capNames[n]
	}
	return fmt.Sprintf("CAP_%d", n)
}

// CapNumber is the number of a capability by its name with CAP_; -1 if there is none.
func CapNumber(name string) int {
	if bare, ok := strings.CutPrefix(name, "CAP_"); ok {
		for n, c := range capNames {
			if c == bare {
				return n
			}
		}
	}
	return -1
}

type capabilitySets struct{ bounding, effective, permitted, inheritable, ambient uint64 }

// capabilities turns names into sets. A capability that is unknown here or to the kernel is a warning, as
// runtime-spec asks; no capabilities at all in the configuration means that the process gets none.
func (c *compiler) capabilities() (s capabilitySets) {
	p := c.spec.Process.Capabilities
	if p == nil {
		return s
	}
	warned := map[string]bool{}
	set := func(names []string) (bits uint64) {
		for _, name := range names {
			n := CapNumber(name)
			if n < 0 || n > c.facts.LastCap {
				if !warned[name] {
					warned[name] = true
					c.warnings = append(c.warnings, fmt.Sprintf("process.capabilities: %q is unknown here and left out", name))
				}
				continue
			}
			bits |= 1 << n
		}
		return bits
	}
	s = capabilitySets{set(p.Bounding), set(p.Effective), set(p.Permitted), set(p.Inheritable), set(p.Ambient)}
	var names []string
	for n := 0; n <= c.facts.LastCap; n++ {
		if s.ambient&^(s.permitted&s.inheritable)&(1<<n) != 0 {
			names = append(names, CapName(n))
		}
	}
	if len(names) > 0 { // one line: runc's own config.json of old asks for three
		c.warnings = append(c.warnings, "process.capabilities.ambient: can't raise ambient capability "+strings.Join(names, ", ")+": want it permitted and inheritable, too")
	}
	return s
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// socketOwner names the process that has a port of the host, for a message; "a process" if it cannot be found.
func socketOwner(p Port) string {
	inodes := map[string]bool{}
	for _, v := range []string{"", "6"} {
		// Of this thread: the process's first one may have been in another namespace (makeNetns).
		f, err := os.Open("/proc/thread-self/net/" + p.Protocol + v)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
			w := strings.Fields(lines.Text())
			if len(w) < 10 || !strings.HasSuffix(w[1], fmt.Sprintf(":%04X", p.HostPort)) || p.Protocol == "tcp" && w[3] != "0A" {
				continue
			}
			inodes["socket:["+w[9]+"]"] = true
		}
		f.Close()
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			pid := strings.Split(fd, "/")[2]
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm)))
		}
	}
	return "a process"
}

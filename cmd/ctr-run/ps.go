// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// psTable prints those lines of the host's ps(1) that are about the container's processes.
func psTable(c *cobra.Command, pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.CommandContext(c.Context(), "ps", options...).Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(failed.Stderr))
		}
		return fmt.Errorf("ps %s: %w", strings.Join(options, " "), err)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	column := -1
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if column < 0 {
			if column = slices.Index(fields, "PID"); column < 0 {
				return fmt.Errorf("ps %s: found no column PID in %q, want one", strings.Join(options, " "), lines.Text())
			}
		} else if column >= len(fields) {
			continue
		} else if n, err := strconv.Atoi(fields[column]); err != nil || !slices.Contains(pids, n) {
			continue
		}
		fmt.Fprintln(c.OutOrStdout(), lines.Text())
	}
	return lines.Err()
}

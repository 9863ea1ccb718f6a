// SPDX-License-Identifier: Apache-2.0

// Package toolkit finds and runs the sibling tools: first in the directory of the running program, then
// in PATH. With CTR_TRACE=1 in the environment every command line is printed on stderr, ready to paste.
package toolkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// Find returns the path of a sibling tool. It fails with fs.ErrNotExist.
func Find(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fault.Hint(fmt.Errorf("find %s: %w", name, os.ErrNotExist),
			"install %s next to the other ctr tools or put its directory into PATH", name)
	}
	return filepath.Abs(p)
}

// Libexec returns the directories where helper programs of a kind ("cni") are looked for: beside the
// running program's prefix, then the system's places given.
func Libexec(kind string, system ...string) []string {
	var dirs []string
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(filepath.Dir(self)), "libexec", "ctr", kind))
	}
	return append(dirs, system...)
}

// A Failure is a tool that ran and exited with another status than 0.
type Failure struct {
	Args   []string // with the tool's name first
	Status int      // exit status; 128+n for a signal
	Stderr string   // what it said, if it was captured: its own "tool: message" lines
}

func (f *Failure) Error() string {
	if s := strings.TrimSpace(f.Stderr); s != "" {
		return s
	}
	return fmt.Sprintf("%s: exit status %d", Quote(f.Args), f.Status)
}

// Command prepares a sibling tool's call. Stdio is the caller's to set; the environment is inherited.
// When ctx ends, the tool gets SIGINT.
func Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := Find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Args[0] = name
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	Trace(cmd.Args)
	return cmd, nil
}

// Trace prints a command line on stderr if CTR_TRACE is set.
func Trace(args []string) {
	if t := os.Getenv("CTR_TRACE"); t != "" && t != "0" {
		fmt.Fprintln(os.Stderr, "+ "+Quote(args))
	}
}

// Run runs a tool with the given streams (nil: none) and waits. A tool that fails is a *Failure; its
// stderr is captured only if stderr is nil.
func Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, name string, args ...string) error {
	cmd, err := Command(ctx, name, args...)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	if stderr == nil {
		cmd.Stderr = &said
	}
	return failure(cmd.Args, cmd.Run(), said.String())
}

// Output runs a tool and returns what it printed on stdout. Stderr goes into the *Failure.
func Output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := Run(ctx, nil, &out, nil, name, args...)
	return out.Bytes(), err
}

func failure(args []string, err error, said string) error {
	var ee *exec.ExitError
	if !errors.As(err, &ee) {
		return err
	}
	return &Failure{Args: args, Status: ExitStatus(ee.ProcessState), Stderr: said}
}

// ExitStatus is a process's status as the shell counts: 128+n for death by signal n.
func ExitStatus(p *os.ProcessState) int {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}

// Quote makes one line of POSIX shell of the words.
func Quote(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(QuoteWord(w))
	}
	return b.String()
}

// QuoteWord makes one shell word of s, unquoted where that is safe.
func QuoteWord(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

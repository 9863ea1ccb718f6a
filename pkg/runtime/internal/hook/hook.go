// SPDX-License-Identifier: Apache-2.0

// Package hook runs the hooks of a configuration in the runtime's namespaces (runtime-spec, "POSIX-platform
// Hooks"): with their own arguments and environment, nothing of the caller's, in the bundle as working
// directory, and with the container's state on stdin. A hook that fails, or is not done in time, ends the list.
package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxOutput is how much of a hook's output an error shows.
const maxOutput = 4096

// Run runs hooks one after the other. name is their list's, for errors; state is what they read.
func Run(name string, hooks []specs.Hook, bundle string, state []byte) error {
	for i := range hooks {
		h := &hooks[i]
		if err := run(h, bundle, state); err != nil {
			return Error(name, i, h, err)
		}
	}
	return nil
}

// Error says which hook failed.
func Error(name string, index int, h *specs.Hook, err error) error {
	return fmt.Errorf("hooks.%s[%d]: %s: %w", name, index, h.Path, err)
}

func run(h *specs.Hook, bundle string, state []byte) error {
	ctx := context.Background()
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Timeout(h))
		defer cancel()
	}
	out := new(tail)
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...)
	cmd.Dir = bundle
	cmd.Stdin = bytes.NewReader(state)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second // a hook's child may hold the pipe for ever
	// The whole group is killed at the end of its time, with what the hook has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("not done within %d s", *h.Timeout)
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil
	}
	if err != nil && len(out.b) > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(out.b))
	}
	return err
}

// Timeout is how long a hook may take; 0 is for ever.
func Timeout(h *specs.Hook) time.Duration {
	if h.Timeout == nil {
		return 0
	}
	return time.Duration(*h.Timeout) * time.Second
}

// Tail reads all there is and returns the end of it, without white space around it.
func Tail(r io.Reader) []byte {
	t := new(tail)
	_, _ = io.Copy(t, r)
	return bytes.TrimSpace(t.b)
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - maxOutput; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}

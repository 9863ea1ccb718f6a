// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	cnitypes "github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// A runner runs plugins for libcni. Unlike libcni's own it ends a plugin with all its children when the context
// ends, does not wait for who holds its output, and takes no more than a bounded answer.
type runner struct {
	invoke.RawExec
	version.PluginDecoder
}

// maxAnswerBytes bounds what a plugin may print.
const maxAnswerBytes = 1 << 20

// ExecPlugin runs a plugin. A failure is the plugin's own error if it answers with one.
func (*runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var out, said bounded
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &out, &said
	// A group of its own: a terminal's Ctrl-C is for us, and undo may need the plugin again.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		if out.over {
			return nil, fmt.Errorf("plugin %s: answers with more than %d bytes", filepath.Base(path), maxAnswerBytes)
		}
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("plugin %s: %w", filepath.Base(path), context.Cause(ctx))
	}
	var own cnitypes.Error
	if json.Unmarshal(out.Bytes(), &own) == nil && own.Code != 0 {
		return nil, &own
	}
	text := bytes.TrimSpace(append(said.Bytes(), out.Bytes()...))
	return nil, fmt.Errorf("plugin %s: %w: %s", filepath.Base(path), err, text[:min(500, len(text))])
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	bytes.Buffer
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := maxAnswerBytes - b.Len()
	if len(p) > room {
		b.over = true
		b.Buffer.Write(p[:room])
	} else {
		b.Buffer.Write(p)
	}
	return len(p), nil
}

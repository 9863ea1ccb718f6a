// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/hook"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/spec"
	"github.com/ctr-tools/ctr/pkg/state"
)

// Start lets init execute the user's program. It fails, naming the cause, if that program cannot be executed.
func (r *Runtime) Start(ctx context.Context, id string) error {
	st, err := state.Read(r.root, id)
	if err != nil {
		return err
	}
	if !st.Alive() {
		return fmt.Errorf("%s: cannot start a container that has stopped", id)
	}
	socket := r.Dir(id) + "/" + state.StartFile
	fd, err := connect(socket)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s: cannot start a container that is running already: %w", id, fault.ErrBusy)
	}
	if err != nil {
		return err
	}
	l := &launch{sock: fd, pid: st.Pid, what: r.callNames(id)}
	defer l.close()
	cfg, err := r.savedConfig(st)
	if err != nil {
		return err
	}
	l.process = cfg.spec.Process
	l.onHook = func(kind compile.Kind) error {
		return runInside("startContainer", cfg.spec.Hooks.StartContainer, cfg, st, state.Created, false)
	}
	l.onListener = func(fd int) error { return sendListener(st.Pid, fd, cfg.spec.Linux.Seccomp, st) }
	if err := l.release(); err != nil {
		return fmt.Errorf("%s: init: %w", id, err)
	}
	if _, err := l.follow(); err != nil {
		syscall.Kill(st.Pid, syscall.SIGKILL)
		return err
	}
	// The socket is of no use any more; where it stays, nobody answers there.
	syscall.Unlink(socket)
	return r.poststart(cfg, st)
}

// poststart runs the hooks of that name. When one fails the container is killed: start has failed.
func (r *Runtime) poststart(cfg *config, st *state.State) error {
	if cfg.spec.Hooks == nil || len(cfg.spec.Hooks.Poststart) == 0 {
		return nil
	}
	err := hook.Run("poststart", cfg.spec.Hooks.Poststart, st.Bundle, st.OCI(state.Running))
	if err != nil {
		syscall.Kill(st.Pid, syscall.SIGKILL)
	}
	return err
}

// savedConfig is the configuration that the container was created with.
func (r *Runtime) savedConfig(st *state.State) (*config, error) {
	path := r.Dir(st.ID) + "/" + state.ConfigFile
	raw, err := readRegular(path, maxSavedConfig)
	if err != nil {
		return nil, err
	}
	s, err := spec.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c := &config{raw: raw, spec: s, bundle: st.Bundle}
	c.facts.LastCap = lastCap()
	return c, nil
}

const maxSavedConfig = 16 << 20

// callNames says what init's calls after the wait are for, from the file that create left. It is read only when
// there is a failure to name.
func (r *Runtime) callNames(id string) func(int) string {
	return func(op int) string {
		b, err := os.ReadFile(r.Dir(id) + "/" + state.CallsFile)
		if err == nil {
			for line := range strings.Lines(string(b)) {
				n, what, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
				if n == strconv.Itoa(op) {
					return what
				}
			}
		}
		return "init's call " + strconv.Itoa(op)
	}
}

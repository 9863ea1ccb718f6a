// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/cgroup"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/hook"
	"github.com/ctr-tools/ctr/pkg/state"
)

// killPatience is how long delete --force waits for the end of what it has killed.
const killPatience = 10 * time.Second

// status says where a container is in its life. What the kernel says counts, not what files say: init listens
// for start as long as it waits.
func (r *Runtime) status(st *state.State) state.Status {
	if !st.Alive() {
		return state.Stopped
	}
	socket := r.Dir(st.ID) + "/" + state.StartFile
	if syscall.Access(socket, 0) == nil {
		if fd, err := connect(socket); err == nil {
			syscall.Close(fd)
			return state.Created
		}
	}
	if frozen, err := cgroupOf(st).Frozen(); err == nil && frozen {
		return state.Paused
	}
	return state.Running
}

// State returns the state of one container. It fails with fs.ErrNotExist.
func (r *Runtime) State(id string) (*Container, error) {
	st, err := state.Read(r.root, id)
	if err != nil {
		return nil, err
	}
	return &Container{st, r.status(st)}, nil
}

// List returns all containers, sorted by id; those whose state cannot be read are left out, with a warning.
func (r *Runtime) List() ([]*Container, error) {
	ids, err := state.List(r.root)
	if err != nil {
		return nil, err
	}
	list := make([]*Container, 0, len(ids))
	for _, id := range ids {
		c, err := r.State(id)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, state.ErrCreating) {
				r.warn(err.Error())
			}
			continue
		}
		list = append(list, c)
	}
	return list, nil
}

// Kill sends a signal to init, or with all to every process in the container's cgroup. A container without a
// pid namespace of its own outlives its init, so there KILL goes to all.
func (r *Runtime) Kill(id string, sig syscall.Signal, all bool) error {
	st, err := state.Read(r.root, id)
	if err != nil {
		return err
	}
	g := cgroupOf(st)
	if all || st.SharedPids && sig == syscall.SIGKILL {
		if sig == syscall.SIGKILL {
			return g.Kill()
		}
		return g.Signal(sig)
	}
	pidfd, err := unix.PidfdOpen(st.Pid, 0)
	if err == nil {
		defer syscall.Close(pidfd)
	}
	if err != nil || !st.Alive() {
		return fmt.Errorf("%s: container not running", id)
	}
	if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("%s: signal %d to process %d: %w", id, int(sig), st.Pid, err)
	}
	if sig == syscall.SIGKILL {
		if frozen, err := g.Frozen(); err == nil && frozen {
			return g.Thaw() // on cgroup v1 a frozen process does not even die
		}
	}
	return nil
}

// Delete removes what there is of a container that has stopped, or with force of any: then init is killed
// first, and a container that does not exist is no error.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	st, err := state.Read(r.root, id)
	switch {
	case errors.Is(err, state.ErrCreating):
		return r.removeUnfinished(ctx, id, force)
	case force && errors.Is(err, fs.ErrNotExist) && state.CheckID(id) == nil:
		return nil
	case err != nil:
		return err
	}
	switch status := r.status(st); {
	case status == state.Stopped:
	case force || status == state.Created:
		if err := r.end(st); err != nil {
			return err
		}
	default:
		return fault.Hint(fmt.Errorf("%s: cannot delete a container that is not stopped: %s: %w", id, status, fault.ErrBusy),
			"ctr-run delete --force %s", id)
	}
	cfg := &config{bundle: st.Bundle}
	if st.Hooks {
		if cfg, err = r.savedConfig(st); err != nil {
			r.warn(err.Error())
			cfg = &config{bundle: st.Bundle}
		}
	}
	return r.remove(st, cfg)
}

// end kills a container and waits until init is gone.
func (r *Runtime) end(st *state.State) error {
	pidfd, err := unix.PidfdOpen(st.Pid, 0)
	if err != nil {
		return nil // gone
	}
	defer syscall.Close(pidfd)
	if !st.Alive() {
		return nil
	}
	g := cgroupOf(st)
	if frozen, err := g.Frozen(); err == nil && frozen {
		if err := g.Kill(); err != nil {
			return err
		}
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("%s: kill process %d: %w", st.ID, st.Pid, err)
	}
	deadline := time.Now().Add(killPatience)
	for {
		left := time.Until(deadline)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, max(0, int(left.Milliseconds())))
		switch {
		case err == unix.EINTR && left > 0:
		case err != nil:
			return fmt.Errorf("%s: wait for process %d: %w", st.ID, st.Pid, err)
		case n == 0:
			return fmt.Errorf("%s: process %d does not end within %v of KILL", st.ID, st.Pid, killPatience)
		default:
			return nil
		}
	}
}

// remove takes cgroup and state of a container away whose init has ended, and runs the hooks for that. A hook
// that fails is a warning: the container is gone all the same (runtime-spec, "Lifecycle", 13).
func (r *Runtime) remove(st *state.State, cfg *config) error {
	g := cgroupOf(st)
	if st.SharedPids {
		if err := g.Kill(); err != nil {
			r.warn(err.Error())
		}
	}
	if err := g.Remove(); err != nil {
		// Processes that exec started can be there still, if they were not children of init's namespace.
		if e := g.Kill(); e != nil {
			return errors.Join(err, e)
		}
		if err := g.Remove(); err != nil {
			return err
		}
	}
	if err := state.Remove(r.Dir(st.ID)); err != nil {
		return err
	}
	if cfg.spec != nil && cfg.spec.Hooks != nil {
		for i := range cfg.spec.Hooks.Poststop { // all of them, whatever happens to one
			if err := hook.Run("poststop", cfg.spec.Hooks.Poststop[i:i+1], st.Bundle, st.OCI(state.Stopped)); err != nil {
				r.warn(err.Error())
			}
		}
	}
	return nil
}

// removeUnfinished removes what a create that died has left: directory and cgroups. Init ended with its creator.
// While a create is at work, or one that was killed is not gone yet, force waits for a while.
func (r *Runtime) removeUnfinished(ctx context.Context, id string, force bool) error {
	deadline := time.Now().Add(killPatience)
	lock, err := lockDir(r.Dir(id))
	for force && errors.Is(err, fault.ErrBusy) && time.Now().Before(deadline) && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		lock, err = lockDir(r.Dir(id))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer syscall.Close(lock)
	if _, err := state.Read(r.root, id); !errors.Is(err, state.ErrCreating) { // it was finished in the meantime, or removed
		return r.Delete(ctx, id, force)
	}
	if !force {
		return fault.Hint(fmt.Errorf("%s: %w", id, state.ErrCreating), "ctr-run delete --force %s", id)
	}
	path, err := os.Readlink(r.Dir(id) + "/" + state.CgroupLink)
	if err != nil {
		path = ""
	}
	if g, err := cgroup.Find(path, id); err == nil {
		if err := g.Remove(); err != nil {
			return err
		}
	}
	return os.RemoveAll(r.Dir(id))
}

// Pids returns the numbers, on the host, of all processes of the container.
func (r *Runtime) Pids(id string) ([]int, error) {
	st, err := state.Read(r.root, id)
	if err != nil {
		return nil, err
	}
	pids, err := cgroupOf(st).Pids()
	sort.Ints(pids)
	return pids, err
}

// Pause freezes all processes of the container.
func (r *Runtime) Pause(id string) error {
	c, err := r.State(id)
	if err != nil {
		return err
	}
	if c.Status != state.Running && c.Status != state.Created {
		return fmt.Errorf("%s: found status %s, want running or created", id, c.Status)
	}
	return cgroupOf(c.State).Freeze()
}

// Resume thaws them.
func (r *Runtime) Resume(id string) error {
	st, err := state.Read(r.root, id)
	if err != nil {
		return err
	}
	if frozen, err := cgroupOf(st).Frozen(); err == nil && !frozen {
		return fmt.Errorf("%s: container not paused", id)
	}
	return cgroupOf(st).Thaw()
}

// SPDX-License-Identifier: Apache-2.0

// Package runtime makes a process of an OCI bundle and looks after it: create, start, run, exec, kill, delete,
// state, list, pause, resume, with runc's meaning of each. The files it keeps are package state's.
//
// It never runs code of its own inside a container. A config.json becomes a program, a list of system calls
// (internal/compile, internal/prog), which a few hundred bytes of machine code execute in the new namespaces
// (internal/initasm).
//
//	rt := runtime.New(place.Containers(place.Run()))
//	c, err := rt.Create(ctx, runtime.CreateOptions{ID: "web", Bundle: "./web"})
//	err = rt.Start(ctx, "web")
//	status, err := c.Wait()
package runtime

import (
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/state"
)

// A Runtime works on the containers of one state root.
type Runtime struct {
	root string

	// Warn gets what is worth saying but no error; nil drops it.
	Warn func(message string)
}

// New returns a Runtime for the state root, which need not exist.
func New(root string) *Runtime { return &Runtime{root: root} }

// Stdio is what a process gets as its standard streams; nil is the caller's own. With a terminal they are not
// used.
type Stdio struct{ Stdin, Stdout, Stderr *os.File }

// CreateOptions say what to create and with what.
type CreateOptions struct {
	ID     string
	Bundle string // directory; empty: the working directory
	Stdio

	// One of the two has to be set if process.terminal is true, and none otherwise: a connected unix socket,
	// or the path of a listening one, which gets the master of the container's terminal (SCM_RIGHTS).
	Console       *os.File
	ConsoleSocket string

	PidFile      string // gets init's number on the host
	PidfdSocket  string // path of a listening unix socket that gets a pidfd of init (SCM_RIGHTS)
	NoPivot      bool   // MS_MOVE and chroot instead of pivot_root
	NoNewKeyring bool
	PreserveFDs  int // how many of the caller's descriptors, from 3 on, the process gets

	config *config // read already
	plain  bool    // the terminal's output goes to no terminal of ours
}

// RunOptions are for Run.
type RunOptions struct {
	CreateOptions
	Detach bool // return when the process has started
	Keep   bool // leave state and cgroup for delete
}

// A Process is a child of the caller that was started in a container: a container's init or what exec started.
type Process struct {
	Pid int
}

// Wait waits for the end of the process. Only the process that called Create or StartExec can, and once.
func (p *Process) Wait() (syscall.WaitStatus, error) { return wait(p.Pid) }

// ExecOptions say what to execute in a running container.
type ExecOptions struct {
	Process *specs.Process // all of it, or nil: the container's own with the fields below

	Args           []string
	Cwd            string
	Env            []string // added
	Terminal       *bool
	User           *specs.User
	AdditionalGids []uint32
	Capabilities   []string // added
	NoNewPrivs     *bool

	Stdio
	Console       *os.File
	ConsoleSocket string
	PidFile       string
	PidfdSocket   string
	PreserveFDs   int
	Cgroup        []string // each [CONTROLLER,…:]PATH below the container's; empty: the container's or init's own
	IgnorePaused  bool
	Detach        bool // Exec only

	plain bool // as in CreateOptions
}

// A Container is a container's recorded state and where it is in its life.
type Container struct {
	*state.State
	Status state.Status
}

// Dir is the state directory of a container: a supervisor may keep files of its own there, which Delete removes.
func (r *Runtime) Dir(id string) string { return state.Dir(r.root, id) }

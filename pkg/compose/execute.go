// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// ExecuteOptions are for Execute.
type ExecuteOptions struct {
	Jobs   int        // at most so many commands at once, those that only wait not counted; 0: 16
	Stderr io.Writer  // what builds and downloads say; nil: dropped unless they fail
	Note   func(Step) // called before each step; nil: not
	Env    []string   // added to the environment of the commands
}

// Execute runs the plan: each step as soon as the steps it waits for are done, as many at once as Jobs allows.
// After a failure no further step starts; those at work are let finish.
func Execute(ctx context.Context, p *Plan, o ExecuteOptions) error {
	if o.Jobs <= 0 {
		o.Jobs = 16
	}
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex // of errs, Note and Stderr
		errs   []error
		failed = make(chan struct{})
		slots  = make(chan struct{}, o.Jobs)
		done   = make([]chan struct{}, len(p.Steps))
	)
	for i := range done {
		done[i] = make(chan struct{})
	}
	stderr := o.Stderr
	if stderr != nil {
		stderr = &lockedWriter{mu: &mu, w: o.Stderr}
	}
	// A step that fails at most ends the waiting of others: they need not run to an end of their own.
	wctx, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	for i, s := range p.Steps {
		wg.Go(func() {
			for _, a := range s.After {
				select {
				case <-done[a]:
				case <-failed:
					return
				case <-ctx.Done():
					return
				}
			}
			sctx := ctx
			if s.Waits {
				sctx = wctx
			} else {
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
				case <-failed:
					return
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-failed:
				return
			default:
			}
			if o.Note != nil {
				mu.Lock()
				o.Note(s)
				mu.Unlock()
			}
			if err := runStep(sctx, s, o.Env, stderr); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if len(errs) == 0 {
					close(failed)
					stopWaiting()
					errs = append(errs, err)
				} else if sctx.Err() == nil {
					errs = append(errs, err)
				}
				return
			}
			close(done[i])
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func runStep(ctx context.Context, s Step, env []string, stderr io.Writer) error {
	cmd, err := toolkit.Command(ctx, s.Argv[0], s.Argv[1:]...)
	if err != nil {
		return err
	}
	// A Ctrl-C of the terminal is for ctr-compose, which passes it on once, as a terminal would: to the group.
	// If we are killed, it ends too and undoes its half: the next call holds the lock and shall be alone. The
	// kernel ties that signal to the thread, so the thread has to live as long as the command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.Env = append(os.Environ(), env...)
	if s.Stdin != "" {
		cmd.Stdin = strings.NewReader(s.Stdin)
	}
	var out, said bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = &said
	if s.Talks && stderr != nil {
		cmd.Stderr = io.MultiWriter(stderr, &said)
	}
	err = cmd.Run()
	var ee interface{ ExitCode() int }
	if errors.As(err, &ee) {
		f := &toolkit.Failure{Args: cmd.Args, Status: toolkit.ExitStatus(cmd.ProcessState), Stderr: said.String()}
		if s.Talks && stderr != nil {
			f.Stderr = "" // said already
		}
		return f
	}
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out.String()); s.Want != "" && got != s.Want {
		return fmt.Errorf("%s exited with status %s", s.About, got)
	}
	return nil
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

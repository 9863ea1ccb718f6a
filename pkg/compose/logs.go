// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// LogOptions are for Logs.
type LogOptions struct {
	Follow     bool
	Tail       string
	Since      string
	Until      string
	Timestamps bool
	NoPrefix   bool
	Color      bool
}

// Logs copies the logs of containers to w, each line with its container's name before it. Without Follow the
// lines of all are in the order of their times.
func Logs(ctx context.Context, w io.Writer, found []*Found, o LogOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	width := 0
	for _, f := range found {
		width = max(width, len(shortName(f)))
	}
	sources := make([]*source, 0, len(found))
	for i, f := range found {
		s, err := openLog(ctx, f.ID, o)
		if err != nil {
			return err
		}
		defer s.close()
		if !o.NoPrefix {
			s.prefix = prefix(shortName(f), width, i, o.Color)
		}
		sources = append(sources, s)
	}
	if o.Follow {
		return follow(w, sources)
	}
	return merge(w, sources, o.Timestamps)
}

// shortName is the container's name without the project's, as docker compose prints it.
func shortName(f *Found) string { return strings.TrimPrefix(f.ID, f.Project+"-") }

func prefix(name string, width, i int, color bool) string {
	p := fmt.Sprintf("%-*s | ", width, name)
	if !color {
		return p
	}
	palette := [...]int{36, 33, 32, 35, 34, 96, 93, 92, 95, 94}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", palette[i%len(palette)], p)
}

type source struct {
	cmd    *exec.Cmd
	pipe   *os.File
	lines  *bufio.Reader
	prefix string
	said   strings.Builder
}

func openLog(ctx context.Context, id string, o LogOptions) (*source, error) {
	args := []string{"logs"}
	if o.Follow {
		args = append(args, "--follow")
	}
	if o.Timestamps || !o.Follow {
		args = append(args, "--timestamps")
	}
	for _, f := range []struct{ name, value string }{{"--tail", o.Tail}, {"--since", o.Since}, {"--until", o.Until}} {
		if f.value != "" {
			args = append(args, f.name, f.value)
		}
	}
	cmd, err := toolkit.Command(ctx, "ctr-run", append(args, id)...)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM} // Ctrl-C is for us
	cmd.Stdout, cmd.Stderr = w, w                                                     // one pipe: the order of both streams stays
	s := &source{cmd: cmd, pipe: r, lines: bufio.NewReaderSize(r, 64<<10)}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	return s, nil
}

func (s *source) close() {
	s.pipe.Close()
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// end waits for the process and makes its failure an error; a process that we ended is none.
func (s *source) end() error {
	err := s.cmd.Wait()
	var ee *exec.ExitError
	if errors.As(err, &ee) && ee.ExitCode() > 0 {
		return &toolkit.Failure{Args: s.cmd.Args, Status: ee.ExitCode(), Stderr: s.said.String()}
	}
	return nil
}

func follow(w io.Writer, sources []*source) error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, len(sources))
	for i, s := range sources {
		wg.Go(func() {
			for {
				line, err := s.lines.ReadString('\n')
				if line != "" {
					mu.Lock()
					_, werr := io.WriteString(w, s.prefix+withNewline(line))
					mu.Unlock()
					if werr != nil {
						errs[i] = werr
						return
					}
				}
				if err != nil {
					break
				}
			}
			errs[i] = s.end()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// merge prints the lines of all sources by time. Each source is in order itself.
func merge(w io.Writer, sources []*source, timestamps bool) error {
	out := bufio.NewWriter(w)
	head := make([]string, len(sources))
	var errs []error
	next := func(i int) {
		line, err := sources[i].lines.ReadString('\n')
		head[i] = line
		if line == "" && err != nil {
			errs = append(errs, sources[i].end())
		}
	}
	for i := range sources {
		next(i)
	}
	for {
		first := -1
		for i, l := range head {
			if l != "" && (first < 0 || stamp(l) < stamp(head[first])) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		line := head[first]
		if !timestamps {
			_, line, _ = strings.Cut(line, " ")
		}
		if _, err := out.WriteString(sources[first].prefix + withNewline(line)); err != nil {
			return err
		}
		next(first)
	}
	return errors.Join(append(errs, out.Flush())...)
}

// stamp is a line's time, made comparable as text: RFC 3339 in UTC with nine digits.
func stamp(line string) string {
	t, _, _ := strings.Cut(line, " ")
	t = strings.TrimSuffix(t, "Z")
	if !strings.Contains(t, ".") {
		t += "."
	}
	return t + "000000000"[:max(0, min(9, 29-len(t)))]
}

func withNewline(line string) string {
	if strings.HasSuffix(line, "\n") {
		return line
	}
	return line + "\n"
}

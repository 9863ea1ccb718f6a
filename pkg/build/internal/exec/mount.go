// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// mounter turns the --mounts of a RUN into mounts of its bundle. Sources are resolved here, in the tree they
// belong to; what the runtime gets are directories that only root can change.
type mounter struct {
	step    *Step
	private string // directory for secrets, on the runtime's side
	locks   []*atomicfile.Lock
	n       int
}

// close releases the caches and removes the secrets.
func (m *mounter) close() {
	for _, l := range m.locks {
		l.Unlock()
	}
	os.RemoveAll(m.private)
}

func (m *mounter) all(ctx context.Context, spec *specs.Spec) error {
	if f := m.step.Do.Script; f != nil {
		p := m.step.Scratch.Path("script")
		if err := write(p, []byte(f.Data), 0o755); err != nil {
			return err
		}
		spec.Mounts = append(spec.Mounts, bindOf(p, path.Join(graph.ScriptDir, f.Name), true))
	}
	for _, do := range m.step.Do.Mounts {
		m.n++
		mount, err := m.mount(ctx, do, spec)
		if err != nil {
			return fmt.Errorf("--mount=type=%s,target=%s: %w", do.Type, do.Target, err)
		}
		if mount != nil {
			spec.Mounts = append(spec.Mounts, *mount)
		}
	}
	return nil
}

func bindOf(source, target string, readOnly bool) specs.Mount {
	o := []string{"bind", "nosuid", "nodev"}
	if readOnly {
		o = append(o, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: o}
}

// write makes a file that is not there yet.
func write(p string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Chmod(mode) // whatever the umask
}

func (m *mounter) mount(ctx context.Context, do graph.Mount, spec *specs.Spec) (*specs.Mount, error) {
	switch do.Type {
	case "tmpfs":
		o := []string{"nosuid", "nodev"}
		if do.Size > 0 {
			o = append(o, "size="+strconv.FormatInt(do.Size, 10))
		}
		if do.ReadOnly {
			o = append(o, "ro")
		}
		return &specs.Mount{Destination: do.Target, Type: "tmpfs", Source: "tmpfs", Options: o}, nil
	case "cache":
		dir, err := m.cache(ctx, do)
		if err != nil {
			return nil, err
		}
		b := bindOf(dir, do.Target, do.ReadOnly)
		return &b, nil
	case "secret":
		return m.secret(do, spec)
	case "bind":
		if do.Context {
			return m.context(ctx, do)
		}
		return m.state(do)
	}
	return nil, fmt.Errorf("not supported")
}

// context binds a private copy of a part of the context: .dockerignore holds here too, and a file that
// somebody swaps later is not followed. What is written to it is lost.
func (m *mounter) context(ctx context.Context, do graph.Mount) (*specs.Mount, error) {
	found, err := m.step.Context.find(do.Source)
	if err != nil {
		return nil, err
	}
	dir := m.step.Scratch.Path("bind" + strconv.Itoa(m.n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := rootfd.Open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if len(found) != 1 {
		return nil, fmt.Errorf("%s: found %d files, want one file or directory", do.Source, len(found))
	}
	// Below the same name as in the context, so that a file and a directory are alike.
	c := &graph.Copy{Context: true, Paths: []string{do.Source}, Dest: "/source"}
	if err := Copy(ctx, c, m.step.Context, root, m.step.Set); err != nil {
		return nil, err
	}
	b := bindOf(filepath.Join(dir, "source"), do.Target, do.ReadOnly)
	return &b, nil
}

// state binds a part of another state. What is written to it is lost.
func (m *mounter) state(do graph.Mount) (*specs.Mount, error) {
	st := m.step.Sources[*do.From]
	view, err := m.step.Scratch.View(st)
	if err != nil {
		return nil, err
	}
	t := StateTree(view, "the stage")
	defer t.Close()
	found, err := t.find(do.Source)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s: found %d files, want one file or directory", do.Source, len(found))
	}
	parts, isDir, err := st.parts(found[0].real)
	if err != nil {
		return nil, err
	}
	if !isDir {
		if !do.ReadOnly {
			return nil, fmt.Errorf("rw: want a directory as source, found the file %s", do.Source)
		}
		b := bindOf(parts[0], do.Target, true)
		return &b, nil
	}
	if len(parts) == 1 && do.ReadOnly {
		b := bindOf(parts[0], do.Target, true)
		return &b, nil
	}
	o := append([]string{"nosuid", "nodev"}, lowerOptions(parts)...)
	if do.ReadOnly {
		o = append(o, "ro")
	} else {
		dir := m.step.Scratch.Path("bind" + strconv.Itoa(m.n))
		for _, sub := range []string{"", "upper", "work"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
				return nil, err
			}
		}
		o = append(o, "upperdir="+filepath.Join(dir, "upper"), "workdir="+filepath.Join(dir, "work"))
	}
	return &specs.Mount{Destination: do.Target, Type: "overlay", Source: "overlay", Options: o}, nil
}

// lowerOptions name lower directories, topmost first. A single option may be no longer than 255 bytes where the
// runtime mounts with fsconfig(2), so each gets its own, if the kernel knows that form (6.8). Before 6.5 it takes any
// option here, an unknown one too, and refuses the mount in the end.
func lowerOptions(dirs []string) (o []string) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err == nil {
		defer unix.Close(fs)
		err = unix.FsconfigSetString(fs, "lowerdir+", "/")
	}
	if err != nil || unix.FsconfigSetFlag(fs, "no_such_option") == nil {
		return []string{"lowerdir=" + strings.Join(dirs, ":")}
	}
	for _, d := range dirs {
		o = append(o, "lowerdir+="+d)
	}
	return o
}

// parts are the directories that make up the directory p of a state, topmost first; for a file, its one
// place. p has no links in it.
func (s State) parts(p string) (parts []string, isDir bool, err error) {
	names := strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
	for _, dir := range s.Lower {
		r, err := rootfd.Open(dir)
		if err != nil {
			return nil, false, err
		}
		at, ends, missing := "", false, false
		for i := 0; i < len(names) && !missing; i++ {
			at = path.Join(at, names[i])
			var st unix.Stat_t
			if st, err = r.Lstat(at); err != nil {
				missing = true
				if errnoOf(err) == unix.ENOENT {
					err = nil
				}
				break
			}
			last := i == len(names)-1
			switch kind := st.Mode & unix.S_IFMT; {
			case kind == unix.S_IFCHR && st.Rdev == 0: // a whiteout
				missing, ends = true, true
			case kind != unix.S_IFDIR && last && len(parts) == 0:
				r.Close()
				return []string{filepath.Join(dir, at)}, false, nil
			case kind != unix.S_IFDIR:
				missing, ends = true, true
			case opaque(r, at):
				ends = true
			}
		}
		r.Close()
		if err != nil {
			return nil, false, err
		}
		if !missing {
			parts = append(parts, filepath.Join(dir, at))
		}
		if ends {
			break
		}
	}
	return parts, true, nil
}

func opaque(r *rootfd.Root, p string) bool {
	f, err := r.OpenFile(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	var v [8]byte
	n, err := unix.Fgetxattr(int(f.Fd()), "trusted.overlay.opaque", v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

// cache returns the directory of a cache mount, locked as its sharing mode says until the step is over. The
// id names it by its digest only.
func (m *mounter) cache(ctx context.Context, do graph.Mount) (string, error) {
	base := filepath.Join(m.step.Caches, digest.FromString(do.ID).Encoded())
	for i := 0; ; i++ {
		dir := base
		if i > 0 {
			dir += "-" + strconv.Itoa(i)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		l, err := lockCache(ctx, dir, do.Sharing)
		if errors.Is(err, unix.EWOULDBLOCK) && do.Sharing == "private" {
			continue // somebody works in it: the next one
		}
		if err != nil {
			return "", err
		}
		m.locks = append(m.locks, l)
		return m.cacheData(dir, do)
	}
}

// cacheData makes the directory that is mounted, which has the owner and mode that the step's author wants.
func (m *mounter) cacheData(dir string, do graph.Mount) (string, error) {
	data := filepath.Join(dir, "data")
	err := os.Mkdir(data, 0o700)
	if errors.Is(err, os.ErrExist) {
		return data, nil
	}
	if err != nil {
		return "", err
	}
	mode := uint32(0o755)
	if do.Mode != nil {
		mode = *do.Mode & 0o7777
	}
	if err := os.Chown(data, int(do.UID), int(do.GID)); err != nil {
		return "", err
	}
	return data, unix.Chmod(data, mode)
}

// lockCache waits for a cache directory: shared with other steps, or, with sharing=locked, alone.
func lockCache(ctx context.Context, dir, sharing string) (*atomicfile.Lock, error) {
	for {
		l, err := atomicfile.TryLockPath(dir, sharing != "shared")
		if sharing == "private" || !errors.Is(err, unix.EWOULDBLOCK) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// secret puts a secret where only this step sees it, on what a reboot empties.
func (m *mounter) secret(do graph.Mount, spec *specs.Spec) (*specs.Mount, error) {
	read, ok := m.step.Secrets[do.ID]
	if !ok {
		if !do.Required {
			return nil, nil
		}
		return nil, fault.Hint(fmt.Errorf("no secret %q", do.ID), "give it: --secret id=%s,src=FILE", do.ID)
	}
	data, err := read()
	if err != nil {
		return nil, err
	}
	if do.Env != "" {
		spec.Process.Env = append(spec.Process.Env, do.Env+"="+string(data))
	}
	if do.Target == "" {
		return nil, nil
	}
	if err := os.MkdirAll(m.private, 0o700); err != nil {
		return nil, err
	}
	mode := uint32(0o400)
	if do.Mode != nil {
		mode = *do.Mode & 0o777
	}
	p := filepath.Join(m.private, "secret"+strconv.Itoa(m.n))
	if err := write(p, data, 0o600); err != nil {
		return nil, err
	}
	if err := os.Chown(p, int(do.UID), int(do.GID)); err != nil {
		return nil, err
	}
	if err := unix.Chmod(p, mode); err != nil {
		return nil, err
	}
	b := bindOf(p, do.Target, true)
	b.Options = append(b.Options, "noexec")
	return &b, nil
}

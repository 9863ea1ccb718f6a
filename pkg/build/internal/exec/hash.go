// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
)

// Digest is over all that COPY takes from the tree: which files there are, their paths, modes, contents and
// link targets; for states owners, times, devices and extended attributes too. Times of context files have no
// part in it, for the copies get the epoch.
func (t *Tree) Digest(ctx context.Context, paths, exclude []string) (digest.Digest, error) {
	h := &hasher{t: t, ctx: ctx}
	h.work, _ = errgroup.WithContext(ctx)
	h.work.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range paths {
		found, err := t.find(strings.Replace(p, "/./", "/", 1))
		if err != nil {
			return "", err
		}
		h.lines = append(h.lines, &line{text: "source " + strconv.Quote(p)})
		for _, m := range found {
			h.lines = append(h.lines, &line{text: fmt.Sprintf("match %q dir=%v", m.given, m.dir)})
			if err := t.walk(ctx, m, exclude, h); err != nil {
				h.work.Wait()
				return "", err
			}
		}
	}
	if err := h.work.Wait(); err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, l := range h.lines {
		fmt.Fprintf(sum, "%s %s\n", l.text, l.content)
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}

// line is one file's part of the digest; the content is filled in by a worker.
type line struct {
	text    string
	content digest.Digest
}

type hasher struct {
	t     *Tree
	ctx   context.Context
	lines []*line
	work  *errgroup.Group
}

func (h *hasher) add(e *entry, more string) *line {
	l := &line{text: fmt.Sprintf("%q %o%s", e.rel, e.st.Mode, more)}
	if h.t.state {
		l.text += fmt.Sprintf(" %d:%d %d", e.st.Uid, e.st.Gid, e.st.Mtim.Sec)
	}
	h.lines = append(h.lines, l)
	return l
}

func (h *hasher) leave(*entry) error { return nil }

func (h *hasher) enter(e *entry) error {
	if !h.t.state {
		h.add(e, "")
		return nil
	}
	f, err := e.open()
	if err != nil {
		return err
	}
	defer f.Close()
	x, err := xattrText(f)
	h.add(e, x)
	return err
}

func (h *hasher) file(e *entry) error {
	switch e.kind() {
	case unix.S_IFLNK:
		target, err := e.readlink()
		h.add(e, " -> "+strconv.Quote(target))
		return err
	case unix.S_IFREG:
	default:
		if !h.t.state {
			return e.errorf("read", fmt.Errorf("is a device or FIFO: none is taken from %s", h.t.name))
		}
		h.add(e, fmt.Sprintf(" dev %d", e.st.Rdev))
		return nil
	}
	f, err := e.open()
	if err != nil {
		return err
	}
	more := " " + strconv.FormatInt(e.st.Size, 10)
	if h.t.state {
		x, err := xattrText(f)
		if err != nil {
			f.Close()
			return err
		}
		more += x
	}
	l := h.add(e, more)
	key := printOf(&e.st)
	h.t.mu.Lock()
	known, ok := h.t.seen[key]
	h.t.mu.Unlock()
	if ok {
		f.Close()
		l.content = known
		return nil
	}
	h.work.Go(func() error {
		defer f.Close()
		if l.content, err = h.t.sum(h.ctx, f); err != nil {
			return err
		}
		h.t.mu.Lock()
		h.t.seen[key] = l.content
		h.t.mu.Unlock()
		return nil
	})
	return nil
}

const bufferBytes = 128 << 10

func (t *Tree) sum(ctx context.Context, f *os.File) (digest.Digest, error) {
	h := sha256.New()
	b, ok := t.buffers.Get().(*[bufferBytes]byte) // saves an allocation for each of many small files
	if !ok {
		b = new([bufferBytes]byte)
	}
	defer t.buffers.Put(b)
	buf := b[:]
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			return digest.NewDigest(digest.SHA256, h), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// unchanged fails where a file that is being copied is not the one that was hashed.
func (t *Tree) unchanged(f *os.File) error {
	if t.state {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.seen[printOf(&st)]; !ok {
		return fmt.Errorf("changed while the build was reading it")
	}
	return nil
}

// xattrText is a file's extended attributes, sorted, without those of the overlay and the host.
func xattrText(f *os.File) (string, error) {
	all, err := xattrs(f)
	if err != nil {
		return "", err
	}
	var names []string
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, " %q=%q", n, all[n])
	}
	return b.String(), nil
}

func xattrs(f *os.File) (map[string][]byte, error) {
	n, err := unix.Flistxattr(int(f.Fd()), nil) // most files have none
	if err == nil && n == 0 {
		return nil, nil
	}
	buf := make([]byte, 64<<10)
	if err == nil {
		n, err = unix.Flistxattr(int(f.Fd()), buf)
	}
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "list extended attributes", Path: f.Name(), Err: err}
	}
	all := map[string][]byte{}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") || name == "security.selinux" {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(int(f.Fd()), name, v)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "extended attribute " + name, Path: f.Name(), Err: err}
		}
		all[name] = v[:n:n]
	}
	return all, nil
}

// CopyDigest is the content key's part of a Copy: what it takes from its source.
func (t *Tree) CopyDigest(ctx context.Context, c *graph.Copy) (digest.Digest, error) {
	return t.Digest(ctx, c.Paths, c.Exclude)
}

// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layer"
	"github.com/ctr-tools/ctr/pkg/rootfd"
	"github.com/ctr-tools/ctr/pkg/snapshot"
)

func (Copy) prepare(ctx context.Context, m *maker) error {
	rootfs := m.b.Path(bundle.RootfsDir)
	if err := (snapshot.Copy{Limits: m.o.Limits}).Unpack(ctx, m.layers, rootfs); err != nil {
		return err
	}
	root, err := rootfd.Open(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := m.config(root); err != nil {
		return err
	}
	return makeWorkingDir(root, nil, layer.Overlay{}, m.spec.Process.Cwd)
}

// makeWorkingDir makes the working directory as container engines do: mode 0755, owner root.
func makeWorkingDir(upper *rootfd.Root, parents []*rootfd.Root, form layer.Overlay, dir string) error {
	merged, err := layer.Merge(upper, parents, form)
	if err != nil {
		return err
	}
	if err := errors.Join(merged.MkdirAll(dir), merged.Close()); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	return nil
}

func (Overlay) prepare(ctx context.Context, m *maker) error {
	_, err := m.stack(ctx)
	return err
}

func (Mount) prepare(ctx context.Context, m *maker) error {
	o, err := m.stack(ctx)
	if err != nil {
		return err
	}
	m.overlay = nil // it is mounted: a runtime must not do it again
	return m.mount(o)
}

// stack unpacks the layers and makes upper/ and work/.
func (m *maker) stack(ctx context.Context) (*bundle.Overlay, error) {
	form := snapshot.Overlay{UserXattr: os.Geteuid() != 0, Limits: m.o.Limits}
	st, err := form.Stack(ctx, m.session, m.layers)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{bundle.UpperDir, bundle.WorkDir} {
		if err := m.names(name, 0o755); err != nil {
			return nil, err
		}
	}
	// The upper directory's own metadata is that of the container's root directory.
	upper := m.b.Path(bundle.UpperDir)
	if st.Root != "" {
		err = layer.CopyMeta(st.Root, upper)
	} else {
		err = os.Chtimes(upper, epoch(), epoch())
	}
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	if err := m.look(st, form); err != nil {
		return nil, err
	}
	o := &bundle.Overlay{Upper: bundle.UpperDir, Work: bundle.WorkDir}
	for _, l := range st.Lower {
		o.Lower = append(o.Lower, m.relative(l))
	}
	if form.UserXattr {
		o.Options = []string{"userxattr"}
	} else {
		// What the container changes stays a layer: no redirects, no metadata without content.
		o.Options = []string{"redirect_dir=off", "metacopy=off"}
	}
	m.overlay = o
	return o, m.session.Use(st, m.b.Dir())
}

// relative names a tree relative to the bundle if both are below the same root, so that the root can be moved.
func (m *maker) relative(path string) string {
	root, err := filepath.Abs(m.o.Root)
	if err != nil {
		return path
	}
	for _, p := range []string{m.b.Dir(), path} {
		if rel, err := filepath.Rel(root, p); err != nil || !filepath.IsLocal(rel) {
			return path
		}
	}
	rel, err := filepath.Rel(m.b.Dir(), path)
	if err != nil {
		return path
	}
	return rel
}

// look reads what the config needs from the image's files, without a mount, and makes the working directory.
func (m *maker) look(st *snapshot.Stack, form snapshot.Overlay) error {
	var parents []*rootfd.Root
	defer func() {
		for _, r := range parents {
			r.Close()
		}
	}()
	for _, l := range st.Lower {
		r, err := rootfd.Open(l)
		if err != nil {
			return err
		}
		parents = append(parents, r)
	}
	overlay := layer.Overlay{UserXattr: form.UserXattr}
	// Looking leaves copies of directories behind: in a tree that is thrown away.
	scratch, accounts := filepath.Join(m.b.Path(bundle.UnpackDir), "look"), filepath.Join(m.b.Path(bundle.UnpackDir), "accounts")
	for _, d := range []string{scratch, filepath.Join(accounts, "etc")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	t, err := rootfd.Open(scratch)
	if err != nil {
		return err
	}
	defer t.Close()
	merged, err := layer.Merge(t, parents, overlay)
	if err != nil {
		return err
	}
	missing, err := m.read(merged, accounts)
	if err := errors.Join(err, merged.Close()); err != nil || !missing {
		return err
	}
	upper, err := rootfd.Open(m.b.Path(bundle.UpperDir))
	if err != nil {
		return err
	}
	defer upper.Close()
	return makeWorkingDir(upper, parents, overlay, m.spec.Process.Cwd)
}

// read copies the account files to a tree of their own, makes the config, and says whether the working directory
// is missing.
func (m *maker) read(merged *layer.Merged, accounts string) (missing bool, err error) {
	for _, name := range []string{image.PasswdFile, image.GroupFile} {
		data, err := merged.ReadFile(name, image.MaxAccountBytes)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("image's %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(accounts, name), data, 0o600); err != nil {
			return false, err
		}
	}
	root, err := rootfd.Open(accounts)
	if err != nil {
		return false, err
	}
	defer root.Close()
	if err := m.config(root); err != nil {
		return false, err
	}
	there, err := merged.IsDir(m.spec.Process.Cwd)
	if err != nil {
		return false, fmt.Errorf("working directory: %w", err)
	}
	return !there, nil
}

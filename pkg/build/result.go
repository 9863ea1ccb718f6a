// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/build/internal/export"
	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/build/internal/solve"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/transfer"
)

// targets are where the result goes: checked before anything is built.
type targets struct {
	names   []string
	outputs []image.Operand
}

func parseTargets(o Options) (t targets, err error) {
	for _, n := range o.Names {
		full, err := image.Normalize(n)
		if err != nil {
			return t, fault.As(fault.ErrUsage, fmt.Errorf("-t: %w", err))
		}
		t.names = append(t.names, full)
	}
	for _, s := range o.Outputs {
		op, err := image.ParseOperand(s)
		if err != nil {
			return t, fault.As(fault.ErrUsage, fmt.Errorf("-o %s: %w", s, err))
		}
		if op.Kind == image.KindReference || op.Digest != "" {
			return t, fault.Hint(fault.Usagef("-o %s: want oci:DIR:NAME, oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]", s),
				"-t names the image in the default layout; ctr-push sends it to a registry")
		}
		if op.Name == "" && len(t.names) > 0 {
			op.Name = t.names[0]
		}
		if op.Name == "" && op.Kind == image.KindLayout {
			return t, fault.Usagef("-o %s: want a name, oci:%s:NAME", s, op.Path)
		}
		t.outputs = append(t.outputs, op)
	}
	return t, nil
}

// export writes the image's documents into the default layout and names them, last of all.
func (b *builder) export(ctx context.Context, w *layout.Writer, k *worker, g *graph.Graph, results map[*graph.Op]solve.Result, t targets) (res Result, err error) {
	var layers []export.Layer
	var below solve.State
	for _, l := range results[g.Top].State.Layers {
		d, err := k.blob(ctx, below, l)
		if err != nil {
			return res, fmt.Errorf("layer %s: %w", l.DiffID, err)
		}
		layers = append(layers, export.Layer{DiffID: l.DiffID, Blob: d})
		below = below.Push(l)
	}
	config := export.Config(g, layers, func(op *graph.Op) bool { return results[op].Changed }, b.epoch)
	cd, err := w.PutJSON(ctx, ocispec.MediaTypeImageConfig, config)
	if err != nil {
		return res, err
	}
	manifest := export.Manifest(cd, layers)
	md, err := w.PutJSON(ctx, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return res, err
	}
	res = Result{Digest: md.Digest, Config: cd.Digest, Names: t.names}
	md.Platform = &ocispec.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
	for _, o := range t.outputs {
		if err := b.copyTo(ctx, md, o); err != nil {
			return res, fmt.Errorf("output %s: %w", o, err)
		}
	}
	for _, n := range t.names {
		if err := w.Tag(n, md); err != nil {
			return res, err
		}
	}
	return res, nil
}

// copyTo copies the result out of the default layout.
func (b *builder) copyTo(ctx context.Context, md ocispec.Descriptor, o image.Operand) error {
	src := transfer.In(b.layout)
	opts := transfer.Options{AllPlatforms: true}
	if o.Kind == image.KindLayout {
		l, err := layout.Create(o.Path)
		if err != nil {
			return err
		}
		w, err := l.Begin()
		if err != nil {
			return err
		}
		defer w.Close()
		_, err = transfer.Copy(ctx, src, md.Digest.String(), transfer.Layout(w), o.Name, opts)
		return err
	}
	write := func(f *os.File) error {
		a, err := transfer.NewArchiveWriter(f, o.Kind == image.KindDockerArchive)
		if err != nil {
			return err
		}
		if _, err := transfer.Copy(ctx, src, md.Digest.String(), a, o.Name, opts); err != nil {
			return err
		}
		return a.Close()
	}
	if o.Path == "-" {
		return write(os.Stdout)
	}
	f, err := atomicfile.Create(o.Path, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := write(f.File); err != nil {
		return err
	}
	return f.Commit()
}

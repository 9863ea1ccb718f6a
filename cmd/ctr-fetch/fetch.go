// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/progress"
	"github.com/ctr-tools/ctr/pkg/registry"
	"github.com/ctr-tools/ctr/pkg/transfer"
)

// fetchOptions are the flags of the main verb.
type fetchOptions struct {
	root, dir, name string
	platforms       []string
	all, insecure   bool
	jobs            int
}

// fetchFlags makes the root command the main verb: ctr-fetch SRC…
func fetchFlags(c *cobra.Command) {
	var o fetchOptions
	root := cli.RootFlag(c)
	c.Use = "ctr-fetch [flags] SRC…"
	f := c.Flags()
	f.StringVar(&o.dir, "layout", "", "`DIR`: image layout to copy into (default: the root's images)")
	f.StringSliceVar(&o.platforms, "platform", nil, "`PLATFORM`s to copy, such as linux/arm64 (default: this machine's)")
	f.BoolVar(&o.all, "all-platforms", false, "copy every platform and attestation")
	f.StringVar(&o.name, "name", "", "`NAME` in the layout (default: the reference, or the name in the archive)")
	f.BoolVar(&o.insecure, "insecure", false, "allow plain http and certificates that do not verify")
	f.IntVarP(&o.jobs, "jobs", "j", 4, "`NUMBER` of blobs copied at the same time")
	c.Args = fetchArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		o.root = *root
		return fetch(c, o, args)
	}
}

func fetchArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want the image to fetch")
	}
	return nil
}

func fetch(c *cobra.Command, o fetchOptions, args []string) error {
	ctx := c.Context()
	if o.name != "" && len(args) != 1 {
		return fault.Usagef("--name: %d images, want one", len(args))
	}
	operands := make([]image.Operand, len(args))
	for i, a := range args {
		op, err := image.ParseOperand(a)
		if err != nil {
			return err
		}
		if op.Kind == image.KindReference && op.Name == "" {
			return fault.Usagef("%s: a digest alone names no registry, want REPOSITORY@%s", a, a)
		}
		operands[i] = op
	}
	to := transfer.Options{AllPlatforms: o.all, Jobs: o.jobs, Explain: explain(c)}
	for _, s := range o.platforms {
		p, err := image.ParsePlatform(s)
		if err != nil {
			return err
		}
		to.Platforms = append(to.Platforms, p)
	}
	if o.all && o.platforms != nil {
		return fault.Usagef("--platform and --all-platforms exclude each other")
	}
	if o.jobs < 1 {
		return fault.Usagef("--jobs=%d: want 1 or more", o.jobs)
	}
	dir := o.dir
	if dir == "" {
		dir = place.Images(o.root)
	}
	dir = strings.TrimPrefix(dir, "oci:")
	l, err := layout.Create(dir)
	if err != nil {
		return err
	}
	w, err := l.Begin()
	if err != nil {
		return err
	}
	defer w.Close()
	client := registry.NewClient(registry.Options{Insecure: o.insecure, UserAgent: "ctr-fetch/" + cli.Version, Explain: explain(c)})
	for i, op := range operands {
		if err := fetchOne(ctx, c, client, w, op, o.name, to); err != nil {
			return fmt.Errorf("fetch %s: %w", args[i], err)
		}
	}
	return nil
}

// explain prints to stderr with -v.
func explain(c *cobra.Command) func(string, ...any) {
	if !cli.Verbose(c) {
		return func(string, ...any) {}
	}
	return func(format string, args ...any) {
		fmt.Fprintf(c.ErrOrStderr(), c.Root().Name()+": "+format+"\n", args...)
	}
}

func fetchOne(ctx context.Context, c *cobra.Command, client *registry.Client, w *layout.Writer, op image.Operand, name string, o transfer.Options) error {
	if op.Kind == image.KindReference {
		ref, err := image.ParseReference(op.Name)
		if err != nil {
			return err
		}
		repo, err := client.Repository(ref, false)
		if err != nil {
			return err
		}
		at := ref.Tag
		if ref.Digest != "" {
			at = string(ref.Digest)
		}
		if name == "" {
			name = op.Name
		} else if name, err = image.Normalize(name); err != nil {
			return err
		}
		return copyOne(c, repo, at, w, name, o)
	}
	src, closer, err := open(ctx, c, op)
	if err != nil {
		return err
	}
	defer closer.Close()
	entries, err := selectEntries(ctx, src, op)
	if err != nil {
		return err
	}
	if name != "" {
		if len(entries) != 1 {
			return fault.Usagef("--name: %d images, want one: name it after a colon", len(entries))
		}
		if name, err = image.Normalize(name); err != nil {
			return err
		}
	}
	for _, e := range entries {
		as := name
		if as == "" {
			as = ownName(e.Annotations[ocispec.AnnotationRefName])
			if err := free(ctx, w.Layout(), as, e, op); err != nil {
				return err
			}
		}
		o := o
		if o.Platforms == nil { // what is here anyhow is taken whole
			o.AllPlatforms = true
		}
		if err := copyOne(c, fixed{src, e}, string(e.Digest), w, as, o); err != nil {
			return err
		}
	}
	return nil
}

// copyOne copies one image and prints its digest, after the bars, which would paint over it.
func copyOne(c *cobra.Command, src transfer.Source, at string, w *layout.Writer, name string, o transfer.Options) error {
	o.Bars = progress.New(cli.Quiet(c) || cli.Verbose(c))
	res, err := transfer.Copy(c.Context(), src, at, transfer.Layout(w), name, o)
	o.Bars.Wait()
	if err != nil {
		return err
	}
	explain(c)("%s: %d blobs copied (%d bytes), %d were there", res.Descriptor.Digest, res.Blobs, res.SizeBytes, res.BlobsThere)
	_, err = fmt.Fprintln(c.OutOrStdout(), res.Descriptor.Digest)
	return err
}

// local is a source that lists what it has.
type local interface {
	transfer.Source
	Entries() ([]ocispec.Descriptor, error)
}

// fixed is a source whose one image is known.
type fixed struct {
	local
	d ocispec.Descriptor
}

func (f fixed) Resolve(context.Context, string) (ocispec.Descriptor, error) { return f.d, nil }

func open(ctx context.Context, c *cobra.Command, op image.Operand) (local, io.Closer, error) {
	if op.Kind == image.KindLayout {
		l, err := layout.Open(op.Path)
		return l, io.NopCloser(nil), err
	}
	a, err := transfer.OpenArchive(ctx, op.Path, c.InOrStdin())
	return a, a, err
}

// selectEntries are the images that an operand means: the one it names, else all.
func selectEntries(ctx context.Context, src local, op image.Operand) ([]ocispec.Descriptor, error) {
	all, err := src.Entries()
	if err != nil {
		return nil, err
	}
	if op.Name == "" && op.Digest == "" {
		if len(all) == 0 {
			return nil, fmt.Errorf("no image: %w", fs.ErrNotExist)
		}
		return all, nil
	}
	want := op.Name
	if op.Digest != "" {
		want = string(op.Digest)
	}
	if l, ok := src.(*layout.Layout); ok {
		src = transfer.In(l).(local)
	}
	d, err := src.Resolve(ctx, want)
	return []ocispec.Descriptor{d}, err
}

// ownName is the name under which an image of an archive or layout is kept: its own if that is a reference of
// more than one word. "latest" alone would become an image of Docker Hub; such an image has no name here.
func ownName(name string) string {
	if !strings.ContainsAny(name, "/:") {
		return ""
	}
	full, err := image.Normalize(name)
	if err != nil {
		return ""
	}
	return full
}

// free refuses to let an archive take a name from another image (CVE-2026-50195).
func free(ctx context.Context, l *layout.Layout, name string, e ocispec.Descriptor, op image.Operand) error {
	if name == "" || op.Name != "" {
		return nil
	}
	d, err := l.Resolve(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && d.Digest != e.Digest {
		err = fault.Hint(fmt.Errorf("image %s stands for %s already, here it is %s: %w", name, d.Digest, e.Digest, fs.ErrExist),
			"ctr-fetch --name %s %s replaces it", image.Familiar(name), op)
	}
	return err
}

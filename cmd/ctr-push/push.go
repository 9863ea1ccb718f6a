// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/progress"
	"github.com/ctr-tools/ctr/pkg/registry"
	"github.com/ctr-tools/ctr/pkg/transfer"
)

// pushOptions are the flags of the main verb.
type pushOptions struct {
	platform string
	insecure bool
	jobs     int
}

// pushFlags makes the root command the main verb: ctr-push IMAGE DEST.
func pushFlags(c *cobra.Command) {
	var o pushOptions
	root := cli.RootFlag(c)
	c.Use = "ctr-push [flags] IMAGE DEST"
	f := c.Flags()
	f.StringVar(&o.platform, "platform", "", "`PLATFORM` whose manifest is copied alone, instead of the index")
	f.BoolVar(&o.insecure, "insecure", false, "allow plain http and certificates that do not verify")
	f.IntVarP(&o.jobs, "jobs", "j", 4, "`NUMBER` of blobs copied at the same time")
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("%d operands, want IMAGE DEST", len(args))
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		d, err := push(c, *root, o, args[0], args[1])
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if dest, err := image.ParseOperand(args[1]); err == nil && dest.Path == "-" {
			out = c.ErrOrStderr() // stdout is the archive
		}
		_, err = fmt.Fprintln(out, d.Digest)
		return err
	}
}

func push(c *cobra.Command, root string, o pushOptions, from, to string) (d ocispec.Descriptor, err error) {
	ctx := c.Context()
	src, err := image.ParseOperand(from)
	if err != nil {
		return d, err
	}
	dest, err := image.ParseOperand(to)
	if err != nil {
		return d, err
	}
	l, d, err := transfer.OpenOperand(ctx, root, src)
	if err != nil {
		return d, err
	}
	if o.jobs < 1 {
		return d, fault.Usagef("--jobs=%d: want 1 or more", o.jobs)
	}
	t := transfer.Options{AllPlatforms: true, Jobs: o.jobs, Explain: explain(c), Bars: progress.New(cli.Quiet(c) || cli.Verbose(c))}
	defer t.Bars.Wait()
	if o.platform != "" {
		p, err := image.ParsePlatform(o.platform)
		if err != nil {
			return d, err
		}
		t.AllPlatforms, t.Single, t.Platforms = false, true, []ocispec.Platform{p}
	}
	name := dest.Name
	if name == "" && dest.Kind != image.KindReference {
		name = d.Annotations[ocispec.AnnotationRefName]
	}
	source := fixed{l, d}
	var res *transfer.Result
	switch dest.Kind {
	case image.KindReference:
		res, err = toRegistry(c, source, dest, o, t)
	case image.KindLayout:
		if dest.Digest != "" {
			return d, fault.Usagef("%s: a destination has a name, not a digest", to)
		}
		res, err = toLayout(ctx, source, dest.Path, name, t)
	default:
		res, err = toArchive(c, source, dest, name, t)
	}
	if err != nil {
		return d, fmt.Errorf("push %s to %s: %w", from, to, err)
	}
	explain(c)("%s: %d blobs copied (%d bytes), %d were there", res.Descriptor.Digest, res.Blobs, res.SizeBytes, res.BlobsThere)
	return res.Descriptor, nil
}

// fixed is a layout whose one image is known.
type fixed struct {
	*layout.Layout
	d ocispec.Descriptor
}

func (f fixed) Resolve(context.Context, string) (ocispec.Descriptor, error) { return f.d, nil }

func toRegistry(c *cobra.Command, src transfer.Source, dest image.Operand, o pushOptions, t transfer.Options) (*transfer.Result, error) {
	ref, err := image.ParseReference(dest.Name)
	if err != nil {
		return nil, err
	}
	repo, err := client(c, o.insecure).Repository(ref, true)
	if err != nil {
		return nil, err
	}
	// A registry wants all of an index, and a digest that is not the index's would surprise.
	t.Complete = !t.Single
	tag := ref.Tag
	if ref.Digest != "" {
		if d, _ := src.Resolve(c.Context(), ""); d.Digest != ref.Digest {
			return nil, fault.Usagef("the image is %s, the destination says %s", d.Digest, ref.Digest)
		}
		if tag == "" {
			tag = string(ref.Digest)
		}
	}
	return transfer.Copy(c.Context(), src, "", repo, tag, t)
}

func client(c *cobra.Command, insecure bool) *registry.Client {
	return registry.NewClient(registry.Options{Insecure: insecure, UserAgent: "ctr-push/" + cli.Version, Explain: explain(c)})
}

func toLayout(ctx context.Context, src transfer.Source, dir, name string, t transfer.Options) (*transfer.Result, error) {
	l, err := layout.Create(dir)
	if err != nil {
		return nil, err
	}
	w, err := l.Begin()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return transfer.Copy(ctx, src, "", transfer.Layout(w), name, t)
}

func toArchive(c *cobra.Command, src transfer.Source, dest image.Operand, name string, t transfer.Options) (*transfer.Result, error) {
	t.Jobs = 1 // a tar file has one end
	docker := dest.Kind == image.KindDockerArchive
	if docker {
		t.AllPlatforms, t.Single = false, true
	}
	var out io.Writer = c.OutOrStdout()
	var file *atomicfile.File
	if dest.Path == "-" {
		if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, fault.Usagef("stdout is a terminal, an archive would upset it: redirect it, or name a file")
		}
	} else {
		var err error
		if file, err = atomicfile.Create(dest.Path, 0o644); err != nil {
			return nil, err
		}
		defer file.Abort()
		out = file
	}
	a, err := transfer.NewArchiveWriter(out, docker)
	if err != nil {
		return nil, err
	}
	res, err := transfer.Copy(c.Context(), src, "", a, name, t)
	if err != nil {
		return nil, err
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	if file != nil {
		return res, file.Commit()
	}
	return res, nil
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

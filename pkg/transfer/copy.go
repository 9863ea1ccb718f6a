// SPDX-License-Identifier: Apache-2.0

// Package transfer copies images between places. Fetch, push, save and load are the same copy with other ends:
//
//	res, err := transfer.Copy(ctx, source, "latest", target, "docker.io/library/app:1", transfer.Options{})
//
// What is copied is the graph below one document: an index, its manifests, their configs and layers. Documents
// go last, children before parents, so that a place that was interrupted holds nothing that points nowhere.
package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ctr-tools/ctr/pkg/descriptor"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/progress"
)

// Source yields content by descriptor. Both methods return fs.ErrNotExist for what is not there. Content is
// verified by whoever reads it.
type Source interface {
	Resolve(ctx context.Context, name string) (ocispec.Descriptor, error)
	Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Target takes content. Push is called for children before their parents, and not for what Exists; it may
// call open more than once. Tag comes last: it stores the document d, whose content is data, and names it.
type Target interface {
	Exists(ctx context.Context, d ocispec.Descriptor) (bool, error)
	Push(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error
	Tag(ctx context.Context, name string, d ocispec.Descriptor, data []byte) error
}

// A Puller is a Target that takes a blob from a source itself, to resume it. wrap counts what is read.
type Puller interface {
	Pull(ctx context.Context, src Source, d ocispec.Descriptor, wrap func(done int64, r io.Reader) io.Reader) error
}

// Options are those of Copy; the zero value copies the image for this machine.
type Options struct {
	// Platforms selects manifests of an index; nil is this machine's.
	Platforms []ocispec.Platform
	// AllPlatforms copies everything in an index, attestations too.
	AllPlatforms bool
	// Single copies the manifest of the one platform instead of the index around it.
	Single bool
	// Complete refuses an index of which the target would not have everything. Without it the index is copied
	// whole, with the manifests selected, and is sparse.
	Complete bool
	// Jobs is how many blobs are copied at the same time; 0 is 4.
	Jobs int
	// Bars, if not nil, shows progress.
	Bars *progress.Bars
	// Explain, if not nil, is told what is done.
	Explain func(format string, args ...any)
}

// A Result says what Copy did.
type Result struct {
	Descriptor  ocispec.Descriptor // of the document that was named
	Platforms   []string           // in a sparse index: what is there of it
	Blobs       int                // copied
	SizeBytes   int64              // copied
	BlobsThere  int                // found at the target
	HasPlatform bool               // Platforms is meaningful: the index is sparse
}

// An Error says at which end a copy failed.
type Error struct {
	Side string // "source" or "target"
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error of that end.
func (e *Error) Unwrap() error { return e.Err }

func side(s string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{s, err}
}

// local is an end that costs nothing to ask.
type local interface {
	Source
	Has(digest.Digest) bool
}

// document is a manifest or index to be copied.
type document struct {
	d    ocispec.Descriptor
	data []byte
}

type copier struct {
	src     Source
	dst     Target
	o       Options
	seen    map[digest.Digest]bool
	docs    []document // children before parents
	blobs   []ocispec.Descriptor
	present []string // platforms of the root index that were selected or are there
	absent  []string // platforms of the root index that are not
}

// Copy copies the image that src calls srcName and gives it the name dstName at dst. What dst has already is
// not read again.
func Copy(ctx context.Context, src Source, srcName string, dst Target, dstName string, o Options) (*Result, error) {
	if o.Explain == nil {
		o.Explain = func(string, ...any) {}
	}
	root, err := src.Resolve(ctx, srcName)
	if err != nil {
		return nil, side("source", err)
	}
	c := &copier{src: src, dst: dst, o: o, seen: map[digest.Digest]bool{}}
	if o.Single {
		if root, err = c.single(ctx, root); err != nil {
			return nil, err
		}
	}
	data, err := c.collect(ctx, root, 0)
	if err != nil {
		return nil, err
	}
	if len(c.absent) > 0 && o.Complete {
		return nil, fault.Hint(fault.Hint(fmt.Errorf("image %s: the index is sparse: %s not there: %w", root.Digest, strings.Join(c.absent, ", "), fs.ErrNotExist),
			"--platform %s copies the manifest of that platform alone, under its own digest", first(c.present)),
			"ctr-fetch --all-platforms REFERENCE fetches the rest first")
	}
	res := &Result{Descriptor: root}
	if err := c.copyBlobs(ctx, res); err != nil {
		return nil, err
	}
	for _, doc := range c.docs[:len(c.docs)-1] { // the last is the root, which Tag stores
		have, err := dst.Exists(ctx, doc.d)
		if err != nil {
			return nil, side("target", err)
		}
		if have {
			continue
		}
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(doc.data)), nil }
		if err := dst.Push(ctx, doc.d, open); err != nil {
			return nil, side("target", err)
		}
	}
	if len(c.absent) > 0 {
		slices.Sort(c.present)
		res.Platforms, res.HasPlatform = slices.Compact(c.present), true
	}
	named := ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size, ArtifactType: root.ArtifactType, Platform: root.Platform}
	if res.HasPlatform {
		named.Annotations = map[string]string{layout.AnnotationPlatforms: strings.Join(res.Platforms, ",")}
	}
	res.Descriptor = named
	return res, side("target", dst.Tag(ctx, dstName, named, data))
}

func first(s []string) string {
	if len(s) == 0 {
		return "OS/ARCH"
	}
	return s[0]
}

// single finds the manifest of the one platform asked for.
func (c *copier) single(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	want := image.DefaultPlatform()
	if len(c.o.Platforms) == 1 {
		want = c.o.Platforms[0]
	} else if len(c.o.Platforms) > 1 {
		return d, fault.Usagef("%d platforms, want one", len(c.o.Platforms))
	}
	for depth := 0; descriptor.IsIndex(d.MediaType); depth++ {
		_, doc, err := c.read(ctx, d)
		if err != nil {
			return d, err
		}
		m, ok := image.Choose(doc.Index.Manifests, want)
		if !ok || depth == maxDepth {
			return d, side("source", c.noPlatform(d, want, doc))
		}
		d = m
	}
	return d, nil
}

func (c *copier) noPlatform(d ocispec.Descriptor, want ocispec.Platform, doc *descriptor.Document) error {
	err := fmt.Errorf("image %s: no manifest for platform %s: %w", d.Digest, image.FormatPlatform(want), fs.ErrNotExist)
	if ps := image.Platforms(doc.Index.Manifests); len(ps) > 0 {
		return fault.Hint(err, "--platform %s", strings.Join(ps, ", or "))
	}
	return err
}

// read gets a document, from the target if it has it: that is nearer.
func (c *copier) read(ctx context.Context, d ocispec.Descriptor) ([]byte, *descriptor.Document, error) {
	var data []byte
	var err error
	if near, ok := c.dst.(local); ok && near.Has(d.Digest) {
		data, err = readFrom(ctx, near, d)
	}
	if data == nil || err != nil {
		if data, err = readFrom(ctx, c.src, d); err != nil {
			return nil, nil, side("source", err)
		}
	}
	doc, err := descriptor.Parse(d.MediaType, data)
	if err != nil {
		return nil, nil, side("source", fmt.Errorf("document %s: %w", d.Digest, err))
	}
	return data, doc, nil
}

func readFrom(ctx context.Context, src Source, d ocispec.Descriptor) ([]byte, error) {
	if err := descriptor.Check(d); err != nil {
		return nil, err
	}
	body, err := src.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := descriptor.ReadAll(d, body)
	if err != nil {
		return nil, fmt.Errorf("document %s: %w", d.Digest, err)
	}
	return data, nil
}

const maxDepth = 8

// collect lists the documents and blobs below d.
func (c *copier) collect(ctx context.Context, d ocispec.Descriptor, depth int) ([]byte, error) {
	if c.seen[d.Digest] {
		return nil, nil
	}
	c.seen[d.Digest] = true
	if depth > maxDepth {
		return nil, descriptor.Mismatch("document %s: more than %d documents in one another", d.Digest, maxDepth)
	}
	data, doc, err := c.read(ctx, d)
	if err != nil {
		return nil, err
	}
	children := doc.Children()
	if doc.Index != nil {
		if children, err = c.choose(ctx, d, doc, depth); err != nil {
			return nil, err
		}
	}
	for _, child := range children {
		if descriptor.IsIndex(child.MediaType) || descriptor.IsManifest(child.MediaType) {
			if _, err := c.collect(ctx, child, depth+1); err != nil {
				return nil, err
			}
			continue
		}
		if err := descriptor.Check(child); err != nil {
			return nil, side("source", fmt.Errorf("document %s: %w", d.Digest, err))
		}
		if !c.seen[child.Digest] {
			c.seen[child.Digest] = true
			c.blobs = append(c.blobs, child)
		}
	}
	c.docs = append(c.docs, document{d, data})
	return data, nil
}

// choose selects the children of an index that are copied, and notes which platforms the target will have.
func (c *copier) choose(ctx context.Context, d ocispec.Descriptor, doc *descriptor.Document, depth int) ([]ocispec.Descriptor, error) {
	all := doc.Index.Manifests
	selected := map[digest.Digest]bool{}
	images := 0
	for _, m := range all {
		if m.Platform != nil && !image.Attestation(m) {
			images++
		}
	}
	if !c.o.AllPlatforms && images > 0 { // without platforms there is nothing to choose by: an index of artifacts
		want := c.o.Platforms
		if want == nil {
			want = []ocispec.Platform{image.DefaultPlatform()}
		}
		for _, p := range want {
			m, ok := image.Choose(all, p)
			if !ok {
				return nil, side("source", c.noPlatform(d, p, doc))
			}
			selected[m.Digest] = true
		}
	}
	var children []ocispec.Descriptor
	for _, m := range all {
		take := len(selected) == 0 || selected[m.Digest]
		if take && c.o.AllPlatforms && !c.o.Complete {
			// A source that is sparse itself gives what it has.
			if local, ok := c.src.(local); ok && !local.Has(m.Digest) {
				take = false
			}
		}
		if !take && !c.o.Complete { // what the target has of an earlier copy is still there
			if there, err := c.dst.Exists(ctx, m); err != nil {
				return nil, side("target", err)
			} else if there {
				c.note(m, depth, true)
				continue
			}
		}
		if c.o.Complete { // all of it: from the source, or because it is there
			take = true
			if local, ok := c.src.(local); ok && !local.Has(m.Digest) {
				there, err := c.dst.Exists(ctx, m)
				if err != nil {
					return nil, side("target", err)
				}
				c.note(m, depth, there)
				continue
			}
		}
		c.note(m, depth, take)
		if take {
			children = append(children, m)
		}
	}
	return children, nil
}

func (c *copier) note(m ocispec.Descriptor, depth int, there bool) {
	if depth > 0 {
		return
	}
	name := string(m.Digest)
	if m.Platform != nil {
		name = descriptor.FormatPlatform(*m.Platform)
	}
	if there {
		c.present = append(c.present, name)
	} else {
		c.absent = append(c.absent, name)
	}
}

// copyBlobs copies the blobs that the target lacks, some at a time.
func (c *copier) copyBlobs(ctx context.Context, res *Result) error {
	jobs := c.o.Jobs
	if jobs <= 0 {
		jobs = 4
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	there := make([]bool, len(c.blobs))
	for i, d := range c.blobs {
		g.Go(func() error {
			have, err := c.dst.Exists(ctx, d)
			if err != nil {
				return side("target", err)
			}
			if there[i] = have; have {
				c.o.Explain("blob %s: there", d.Digest)
				return nil
			}
			c.o.Explain("blob %s: copy %d bytes", d.Digest, d.Size)
			return c.copyBlob(ctx, d)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, d := range c.blobs {
		if there[i] {
			res.BlobsThere++
		} else {
			res.Blobs++
			res.SizeBytes += d.Size
		}
	}
	return nil
}

func (c *copier) copyBlob(ctx context.Context, d ocispec.Descriptor) error {
	label := d.Digest.Encoded()[:12]
	if p, ok := c.dst.(Puller); ok {
		return p.Pull(ctx, c.src, d, func(done int64, r io.Reader) io.Reader { return c.o.Bars.Reader(label, d.Size-done, r) })
	}
	var failed error // at the source, which Push cannot tell from its own
	err := c.dst.Push(ctx, d, func() (io.ReadCloser, error) {
		body, err := c.src.Fetch(ctx, d)
		if err != nil {
			failed = err
			return nil, err
		}
		return &counted{c.o.Bars.Reader(label, d.Size, descriptor.Verify(d, body)), body}, nil
	})
	if failed != nil && errors.Is(err, failed) {
		return side("source", err)
	}
	return side("target", err)
}

// counted is content whose reading a bar shows.
type counted struct {
	io.ReadCloser // ends the bar
	body          io.Closer
}

func (c *counted) Close() error {
	c.ReadCloser.Close()
	return c.body.Close()
}

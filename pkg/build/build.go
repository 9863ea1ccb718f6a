// SPDX-License-Identifier: Apache-2.0

// Package build makes an image of a Dockerfile, in an image layout: the work of ctr-build(1).
//
//	res, err := build.Build(ctx, build.Options{Context: ".", Names: []string{"app"}, Output: os.Stderr})
//
// It goes through four hands that know nothing of each other: graph says what has to be done, solve orders it
// and asks the cache, exec does it, export writes the documents. There is no daemon; a build that is killed
// leaves files that the next one removes. It never runs a program outside a container but its own siblings:
// ctr-run for RUN, ctr-fetch for a base that is missing, ctr-net for a network that was asked for.
package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ctr-tools/ctr/pkg/build/internal/cache"
	"github.com/ctr-tools/ctr/pkg/build/internal/exec"
	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/build/internal/solve"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/layout"
	"github.com/ctr-tools/ctr/pkg/place"
)

// DefaultEpoch is the time of everything in an image unless SOURCE_DATE_EPOCH says otherwise: 1980-01-01, the
// earliest that zip archives, and so Python wheels and jars, can express.
const DefaultEpoch = 315532800

// Options say what to build. The zero value of a field is its default.
type Options struct {
	Root    string // place.Root
	Run     string // place.Run
	Context string // directory; "-": a tar archive on Stdin
	File    string // Dockerfile; "-": Stdin; empty: Dockerfile or Containerfile in the context
	Stdin   io.Reader

	Names    []string // of the result in the default layout; references
	Outputs  []string // further places: oci:DIR:NAME, oci-archive:FILE, docker-archive:FILE
	Target   string   // stage; empty: the last one
	Args     map[string]string
	Labels   map[string]string
	Secrets  map[string]func() ([]byte, error)
	Platform string // empty: this machine's
	Network  string // of RUN: host, none or a network of ctr-net; empty: host
	Allow    []string
	Pull     bool // fetch bases even if they are there
	NoCache  bool
	Keep     bool // keep what a failed RUN left

	Environ []string  // for proxies and SOURCE_DATE_EPOCH; nil: nothing is taken from the environment
	Output  io.Writer // progress and what steps print; nil: discarded
	Quiet   bool      // Output only gets the last lines of a step that failed
	Explain bool      // Output also gets build checks
	Runtime string    // tests only: another program with ctr-run's command line
}

// A Result is the image.
type Result struct {
	Digest digest.Digest // of the manifest
	Config digest.Digest // of the config
	Names  []string      // full references
}

// A builder is one build at work.
type builder struct {
	Options
	epoch    time.Time
	platform ocispec.Platform
	layout   *layout.Layout
	say      *printer
	context  *source
	file     *graph.File
	bases    *bases
}

// Build builds an image. A failure that a line of the Dockerfile is to blame for begins with FILE:LINE.
func Build(ctx context.Context, o Options) (res Result, err error) {
	b, err := start(ctx, o)
	if err != nil {
		return res, err
	}
	defer b.close()
	targets, err := parseTargets(o)
	if err != nil {
		return res, err
	}
	// From here on no gc takes what is new in the layout or among the snapshots.
	w, err := b.layout.Begin()
	if err != nil {
		return res, err
	}
	defer w.Close()
	g, err := b.graph(ctx)
	if err != nil {
		return res, err
	}
	if b.Explain {
		for _, line := range g.Warnings {
			b.say.line("warning: " + line)
		}
	}
	k, err := cache.Open(cacheDir(b.Root))
	if err != nil {
		return res, err
	}
	work, err := b.worker(w)
	if err != nil {
		return res, err
	}
	defer work.close()
	results, err := solve.Run(ctx, g, work, solve.Options{
		Cache: k, NoCache: o.NoCache,
		Common:   []string{"epoch " + strconv.FormatInt(b.epoch.Unix(), 10), "platform " + graph.PlatformName(b.platform)},
		Started:  b.say.started,
		Finished: b.say.finished,
	})
	if err != nil {
		var at *graph.Error
		if errors.As(err, &at) && b.platform.Architecture != image.DefaultPlatform().Architecture {
			err = fault.Hint(err, "a program for %s runs here only with an emulator (binfmt_misc, qemu-user)", graph.PlatformName(b.platform))
		}
		return res, err
	}
	return b.export(ctx, w, work, g, results, targets)
}

// Plan prints what Build would do, as a table or as JSON, and does none of it but fetching bases: what a base
// sets changes what the instructions mean.
func Plan(ctx context.Context, o Options, each func(any) error, table io.Writer) error {
	b, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	g, err := b.graph(ctx)
	if err != nil {
		return err
	}
	if each == nil {
		return g.Print(table)
	}
	for _, op := range g.Ops {
		if err := each(op.Record()); err != nil {
			return err
		}
	}
	return nil
}

// start reads what the build is made of.
func start(ctx context.Context, o Options) (*builder, error) {
	b := &builder{Options: o, say: newPrinter(o.Output, o.Quiet)}
	if b.Root == "" {
		b.Root = place.Root()
	}
	if err := place.Private(place.Build(b.Root)); err != nil {
		return nil, err
	}
	var err error
	if b.Root, b.Run, err = roots(b.Root, b.Run); err != nil {
		return nil, err
	}
	if b.Runtime == "" {
		b.Runtime = "ctr-run"
	}
	if b.Network == "" {
		b.Network = "host"
	}
	for _, a := range o.Allow {
		if a != "network.host" {
			return nil, fault.Usagef("--allow %s: want network.host", a)
		}
	}
	b.platform = image.DefaultPlatform()
	if o.Platform != "" {
		if b.platform, err = image.ParsePlatform(o.Platform); err != nil {
			return nil, err
		}
	}
	if b.epoch, err = epoch(o); err != nil {
		return nil, err
	}
	if b.layout, err = layout.Create(place.Images(b.Root)); err != nil {
		return nil, err
	}
	name, text, ignore, err := b.read(ctx)
	if err != nil {
		b.close()
		return nil, err
	}
	if b.file, err = graph.Parse(name, text); err != nil {
		b.close()
		return nil, err
	}
	if b.context, err = b.context.with(ignore); err != nil {
		b.close()
		return nil, err
	}
	b.bases = &bases{b: b, found: map[string]*base{}}
	return b, nil
}

func (b *builder) close() {
	if b.context != nil {
		b.context.close()
	}
}

// epoch is SOURCE_DATE_EPOCH (reproducible-builds.org) from --build-arg, else the environment, else the default.
func epoch(o Options) (time.Time, error) {
	v, ok := o.Args["SOURCE_DATE_EPOCH"]
	if !ok {
		v, ok = lookup(o.Environ, "SOURCE_DATE_EPOCH")
	}
	if !ok || v == "" {
		return time.Unix(DefaultEpoch, 0).UTC(), nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return time.Time{}, fault.Usagef("SOURCE_DATE_EPOCH=%s: want seconds since 1970", v)
	}
	return time.Unix(n, 0).UTC(), nil
}

func lookup(env []string, name string) (string, bool) {
	for _, e := range slices.Backward(env) {
		if k, v, _ := strings.Cut(e, "="); k == name {
			return v, true
		}
	}
	return "", false
}

// proxies are the variables that RUN gets so that it reaches what this machine reaches; they are in no key
// and in no history.
func (b *builder) proxies() (out []string) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		for _, n := range []string{name, strings.ToLower(name)} {
			v, ok := b.Args[n]
			if !ok && b.Network == "host" {
				v, ok = lookup(b.Environ, n)
			}
			if ok {
				out = append(out, n+"="+v)
			}
		}
	}
	return out
}

func (b *builder) graph(ctx context.Context) (*graph.Graph, error) {
	args := b.Args
	if _, ok := args["SOURCE_DATE_EPOCH"]; !ok {
		args = map[string]string{"SOURCE_DATE_EPOCH": strconv.FormatInt(b.epoch.Unix(), 10)}
		for k, v := range b.Args {
			args[k] = v
		}
	}
	return graph.Build(ctx, b.file, graph.Options{
		Target: b.Target, Args: args, Proxy: b.proxies(), Labels: b.Labels,
		Platform: b.platform, Host: image.DefaultPlatform(),
		Network: b.Network, HostNet: slices.Contains(b.Allow, "network.host"),
		Base: b.bases.get,
	})
}

// read finds the Dockerfile, opens the context, and reads the ignore file.
func (b *builder) read(ctx context.Context) (name string, text, ignore []byte, err error) {
	if b.File == "-" && b.Context == "-" {
		return "", nil, nil, fault.Usagef("-f - and context -: stdin can be one of them")
	}
	if b.context, err = b.open(ctx); err != nil {
		return "", nil, nil, err
	}
	root := b.context.root
	inside := func(n string) ([]byte, error) { return root.ReadFile(n, graph.MaxBytes) }
	read, at := inside, b.File // the file, as read takes it
	switch {
	case b.File == "-":
		name = "Dockerfile"
		text, err = io.ReadAll(io.LimitReader(b.Stdin, graph.MaxBytes+1))
	case b.File != "":
		name = b.File
		if b.Context != "-" {
			if at = b.below(b.File); at == "" {
				read, at = readHost, b.File
			}
		}
		text, err = read(at)
	default:
		for _, at = range []string{"Dockerfile", "Containerfile"} {
			name = at
			if text, err = read(at); !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = fault.Hint(fmt.Errorf("%s: no Dockerfile: %w", b.Context, fs.ErrNotExist), "-f names another file, -f - takes stdin")
		}
	}
	if err != nil {
		return name, nil, nil, err
	}
	if b.File != "-" {
		if ignore, err = read(at + ".dockerignore"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return name, nil, nil, err
		}
	}
	for _, n := range []string{".dockerignore", ".containerignore"} {
		if ignore != nil {
			break
		}
		if ignore, err = inside(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return name, nil, nil, err
		}
	}
	return name, bytes.Clone(text), ignore, nil
}

// below is the path of file inside the context, "" if it is elsewhere. What is inside is part of the context: its
// links do not lead out.
func (b *builder) below(file string) string {
	dir, err := filepath.Abs(b.Context)
	if err == nil {
		file, err = filepath.Abs(file)
	}
	rel, e := filepath.Rel(dir, file)
	if err != nil || e != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return rel
}

func readHost(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, graph.MaxBytes+1))
}

// settings are what all operations share.
func (b *builder) settings() exec.Settings { return exec.Settings{Epoch: b.epoch} }

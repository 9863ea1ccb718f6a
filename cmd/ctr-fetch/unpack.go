// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/image"
	"github.com/ctr-tools/ctr/pkg/progress"
	"github.com/ctr-tools/ctr/pkg/snapshot"
	"github.com/ctr-tools/ctr/pkg/unpack"
)

func unpackVerb() *cobra.Command {
	c := &cobra.Command{
		Use:   "unpack [flags] IMAGE BUNDLE [CMD ARG…]",
		Short: "make a bundle of an image, ready for ctr-run",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("%d operands, want IMAGE BUNDLE [CMD ARG…]", len(args))
			}
			return nil
		},
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows BUNDLE is the container's
	mount := f.Bool("mount", false, "mount the root filesystem on BUNDLE/rootfs, for other runtimes (undo: umount)")
	copied := f.Bool("copy", false, "make plain files in BUNDLE/rootfs instead of using shared layers")
	platform := f.String("platform", "", "`PLATFORM` of an index to unpack (default: this machine's)")
	env := f.StringArrayP("env", "e", nil, "set an environment variable, `K=V`; K alone takes the caller's value (repeatable)")
	envFile := f.StringArray("env-file", nil, "set the environment variables that `FILE` has, one on a line (repeatable)")
	entrypoint := f.String("entrypoint", "", "program, a `STRING` or a JSON array, instead of the image's; empty: none")
	user := f.StringP("user", "u", "", "`USER`[:GROUP] to run as, names or numbers")
	workdir := f.StringP("workdir", "w", "", "working `DIR`; it is made if it is missing")
	hostname := f.String("hostname", "", "host `NAME` (default: made of the bundle's)")
	annotations := f.StringArray("annotation", nil, "set an annotation of config.json, `K=V` (repeatable)")
	terminal := f.BoolP("terminal", "t", false, "give the container a terminal")
	readOnly := f.Bool("read-only", false, "mount the root filesystem read-only")
	patch := f.String("patch", "", "apply the JSON merge patch (RFC 7396) in `FILE` to config.json last; -: stdin")
	maxBytes := f.Int64("max-layer-bytes", 0, "refuse a layer of more than `N` bytes uncompressed (default 128 GiB)")
	maxEntries := f.Int64("max-layer-entries", 0, "refuse a layer of more than `N` entries (default 4194304)")
	maxRatio := f.Int64("max-layer-ratio", 0, "refuse a layer that inflates to more than `N` times its size (default 2000, from 1 GiB on)")
	c.RunE = func(c *cobra.Command, args []string) error {
		o := unpack.Options{Root: rootOf(c)}
		o.Limits = snapshot.Limits{MaxBytes: *maxBytes, MaxEntries: *maxEntries, MaxRatio: *maxRatio}
		switch {
		case *mount && *copied:
			return fault.Usagef("--mount and --copy exclude each other")
		case *mount:
			o.Form = unpack.Mount{}
		case *copied:
			o.Form = unpack.Copy{}
		}
		var p *ocispec.Platform
		if *platform != "" {
			q, err := image.ParsePlatform(*platform)
			if err != nil {
				return err
			}
			p = &q
		}
		o.Runtime = image.RuntimeOptions{User: *user, WorkingDir: *workdir, Hostname: *hostname, Terminal: *terminal, ReadOnly: *readOnly}
		if len(args) > 2 {
			o.Runtime.Cmd = args[2:]
		}
		if c.Flags().Changed("entrypoint") {
			ep, err := parseEntrypoint(*entrypoint)
			if err != nil {
				return err
			}
			o.Runtime.Entrypoint = ep
		}
		var err error
		if o.Runtime.Env, err = environment(*env, *envFile); err != nil {
			return err
		}
		if o.Runtime.Annotations, err = keyValues("--annotation", *annotations); err != nil {
			return err
		}
		if c.Flags().Changed("patch") {
			if o.Patch, err = readPatch(c.InOrStdin(), *patch); err != nil {
				return err
			}
		}
		l, d, err := findImage(c, rootOf(c), args[0])
		if err != nil {
			return err
		}
		img, err := image.Load(c.Context(), l, d, p)
		if err != nil {
			return err
		}
		o.Name = d.Annotations[ocispec.AnnotationRefName]
		bars := progress.New(cli.Quiet(c))
		if bars != nil {
			o.Wrap = func(digest string, size int64, r io.Reader) io.ReadCloser {
				_, hex, _ := strings.Cut(digest, ":")
				return bars.Reader("unpack "+hex[:min(12, len(hex))], size, r)
			}
		}
		err = unpack.Unpack(c.Context(), l, img, args[1], o)
		bars.Wait()
		return err
	}
	return c
}

// parseEntrypoint reads a program's name or a JSON array of words. The empty string is no entrypoint at all.
func parseEntrypoint(s string) ([]string, error) {
	if s == "" {
		return []string{}, nil
	}
	if strings.HasPrefix(strings.TrimSpace(s), "[") {
		words := []string{}
		if err := json.Unmarshal([]byte(s), &words); err != nil {
			return nil, fault.Usagef("--entrypoint: %w", err)
		}
		return words, nil
	}
	return []string{s}, nil
}

// environment collects --env-file, then --env, as docker run does: a name alone takes the caller's value.
func environment(env, files []string) ([]string, error) {
	var all []string
	add := func(where, kv string) error {
		k, _, has := strings.Cut(kv, "=")
		if k == "" || strings.ContainsAny(k, " \t\x00") {
			return fault.Usagef("%s: %q: want NAME=VALUE or NAME", where, kv)
		}
		if !has {
			v, ok := os.LookupEnv(k)
			if !ok {
				return nil
			}
			kv = k + "=" + v
		}
		all = append(all, kv)
		return nil
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		s := bufio.NewScanner(io.LimitReader(f, bundle.MaxConfigBytes))
		s.Buffer(nil, 1<<20)
		for n := 1; s.Scan(); n++ {
			line := strings.TrimLeft(strings.TrimSuffix(s.Text(), "\r"), " \t")
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if err := add(fmt.Sprintf("%s:%d", name, n), line); err != nil {
				f.Close()
				return nil, err
			}
		}
		f.Close()
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, kv := range env {
		if err := add("--env", kv); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func keyValues(flag string, kvs []string) (map[string]string, error) {
	m := map[string]string{}
	for _, kv := range kvs {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fault.Usagef("%s: %q: want KEY=VALUE", flag, kv)
		}
		m[k] = v
	}
	return m, nil
}

func readPatch(stdin io.Reader, name string) ([]byte, error) {
	r := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, bundle.MaxConfigBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > bundle.MaxConfigBytes {
		return nil, fmt.Errorf("--patch: more than %d bytes", bundle.MaxConfigBytes)
	}
	return data, nil
}

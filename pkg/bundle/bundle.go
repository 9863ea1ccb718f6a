// SPDX-License-Identifier: Apache-2.0

// Package bundle owns the bundle contract (spec/bundle.md, ctr-bundle(5)): an OCI bundle, config.json and
// rootfs/, with everything else that belongs to the container next to them. No other package joins a path
// inside a bundle or writes config.json.
//
// A tool changes config.json with [Bundle.Update], which locks the bundle and replaces the file, and
// changes only its own part. Fields that this version of runtime-spec does not know are kept.
package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// Names in a bundle.
const (
	ConfigFile  = "config.json"  // OCI runtime-spec
	RootfsDir   = "rootfs"       // mount point, or the files themselves after unpack --copy
	ImageFile   = "image.json"   // [Image]
	UpperDir    = "upper"        // what the container wrote (overlay upperdir)
	WorkDir     = "work"         // overlay workdir
	EtcDir      = "etc"          // hosts, resolv.conf, hostname: bound over the rootfs's
	NetworkFile = "network.json" // package network
	VolumesFile = "volumes.json" // package volume
	LogFile     = "log"          // package log
	ExitFile    = "exit.json"    // package supervise
	UnpackDir   = ".unpack"      // package unpack: there while a bundle is being made, locked by its maker
)

// MaxConfigBytes bounds every document read from a bundle.
const MaxConfigBytes = 16 << 20

// A Bundle is a directory that follows the contract.
type Bundle struct{ dir string }

// Open opens an existing bundle. It fails with fs.ErrNotExist and a hint.
func Open(dir string) (*Bundle, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(abs, ConfigFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fault.Hint(fmt.Errorf("bundle %s: no %s: %w", dir, ConfigFile, fs.ErrNotExist),
				"make one: ctr-fetch unpack IMAGE %s, or ctr-run spec --bundle %s", dir, dir)
		}
		return nil, err
	}
	return &Bundle{abs}, nil
}

// Create makes an empty bundle directory (mode 0700: set-user-ID files of an image must not be reachable for
// other users of the host) with config as its config.json. It fails with fs.ErrExist if one is there.
func Create(dir string, config *specs.Spec) (*Bundle, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, err
	}
	l, err := atomicfile.LockPath(abs, true)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	b := &Bundle{abs}
	if _, err := os.Lstat(b.Path(ConfigFile)); err == nil {
		return nil, fmt.Errorf("bundle %s: %w", dir, fs.ErrExist)
	}
	data, err := marshal(config)
	if err != nil {
		return nil, err
	}
	return b, atomicfile.Write(b.Path(ConfigFile), data, 0o600)
}

// At is a handle on a bundle that is being made and may have no config.json yet.
func At(dir string) (*Bundle, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Bundle{abs}, nil
}

// Dir is the bundle's absolute path.
func (b *Bundle) Dir() string { return b.dir }

// Path is the absolute path of one of the names above.
func (b *Bundle) Path(name string) string { return filepath.Join(b.dir, name) }

// Resolve makes a path that the bundle's documents may hold relative to the bundle absolute.
func (b *Bundle) Resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(b.dir, path)
}

// Config reads config.json.
func (b *Bundle) Config() (*specs.Spec, error) {
	data, err := b.read(ConfigFile)
	if err != nil {
		return nil, err
	}
	return b.parse(data)
}

func (b *Bundle) parse(data []byte) (*specs.Spec, error) {
	spec := new(specs.Spec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Path(ConfigFile), jsonError(data, err))
	}
	return spec, nil
}

// Update changes config.json: edit gets what is there and changes it in place. The bundle is locked from the
// read to the replacement. Where edit fails, nothing is changed.
func (b *Bundle) Update(edit func(*specs.Spec) error) error {
	if err := b.readable(ConfigFile); err != nil {
		return err
	}
	return atomicfile.Update(b.Path(ConfigFile), 0o600, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, fmt.Errorf("bundle %s: no %s: %w", b.dir, ConfigFile, fs.ErrNotExist)
		}
		spec, err := b.parse(old)
		if err != nil {
			return nil, err
		}
		before, err := json.Marshal(spec)
		if err != nil {
			return nil, err
		}
		if err := edit(spec); err != nil {
			return nil, err
		}
		after, err := json.Marshal(spec)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(before, after) {
			return old, nil
		}
		return keepUnknown(old, before, after)
	})
}

// Rewrite is Update on the document itself, for edits that are documents (a JSON merge patch).
func (b *Bundle) Rewrite(edit func(config []byte) ([]byte, error)) error {
	if err := b.readable(ConfigFile); err != nil {
		return err
	}
	return atomicfile.Update(b.Path(ConfigFile), 0o600, func(old []byte) ([]byte, error) {
		data, err := edit(old)
		if err != nil {
			return nil, err
		}
		if _, err := b.parse(data); err != nil {
			return nil, err
		}
		return data, nil
	})
}

// ReadJSON reads one of the bundle's documents into v. It fails with fs.ErrNotExist.
func (b *Bundle) ReadJSON(name string, v any) error {
	data, err := b.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", b.Path(name), jsonError(data, err))
	}
	return nil
}

// WriteJSON replaces one of the bundle's documents; its owner is the only one to call this.
func (b *Bundle) WriteJSON(name string, v any) error {
	data, err := marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(b.Path(name), data, 0o600)
}

// Remove removes one of the bundle's documents; nothing there is success.
func (b *Bundle) Remove(name string) error {
	if err := os.Remove(b.Path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Lock waits for the bundle's exclusive lock, which Update takes too: never call Update while holding it.
func (b *Bundle) Lock() (*atomicfile.Lock, error) { return atomicfile.LockPath(b.dir, true) }

func (b *Bundle) read(name string) ([]byte, error) {
	if err := b.readable(name); err != nil {
		return nil, err
	}
	return os.ReadFile(b.Path(name))
}

// readable refuses what would block or fill the memory of whoever reads it.
func (b *Bundle) readable(name string) error {
	st, err := os.Stat(b.Path(name))
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() > MaxConfigBytes {
		return fmt.Errorf("%s: %v of %d bytes, want a regular file of at most %d bytes", b.Path(name), st.Mode().Type(), st.Size(), MaxConfigBytes)
	}
	return nil
}

func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return buf.Bytes(), err
}

// jsonError says where in data a JSON error is: line, path, value found and type wanted.
func jsonError(data []byte, err error) error {
	var syn *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syn):
		return fmt.Errorf("line %d: %w", line(data, syn.Offset), err)
	case errors.As(err, &typ):
		return fmt.Errorf("line %d: %s: found a %s, want %s", line(data, typ.Offset), typ.Field, typ.Value, wanted(typ.Type.Kind().String()))
	}
	return err
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(int(offset), len(data))], []byte("\n"))
}

func wanted(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "an integer (" + kind + ")"
	case kind == "struct", kind == "map", kind == "ptr":
		return "an object"
	case kind == "slice":
		return "an array"
	}
	return "a " + kind
}

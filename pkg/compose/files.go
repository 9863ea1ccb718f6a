// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// checkFile refuses what no Compose file is to name: a pipe would keep the loader waiting, a device may never end. A file that
// is missing is the loader's to report.
func checkFile(path string) error {
	st, err := os.Stat(path)
	if err != nil || path == os.DevNull {
		return nil
	}
	kind := "a device"
	switch mode := st.Mode(); {
	case mode.IsRegular() && st.Size() > maxFileBytes:
		return fmt.Errorf("%s: %d bytes, want at most %d", path, st.Size(), maxFileBytes)
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	}
	return fmt.Errorf("%s: is %s, want a regular file", path, kind)
}

// checkDotEnv is checkFile for .env, which is read without anybody having named it.
func checkDotEnv(o *cli.ProjectOptions) error {
	for _, f := range o.EnvFiles {
		if err := checkFile(f); err != nil {
			return err
		}
	}
	return nil
}

// resolveFiles reads the services' env_file and label_file, after a look at what they are.
func resolveFiles(p *types.Project) (*types.Project, error) {
	for name, s := range p.Services {
		for _, f := range s.EnvFiles {
			if err := checkFile(f.Path); err != nil {
				return nil, fmt.Errorf("services.%s.env_file: %w", name, err)
			}
		}
		for _, f := range s.LabelFiles {
			if err := checkFile(f); err != nil {
				return nil, fmt.Errorf("services.%s.label_file: %w", name, err)
			}
		}
	}
	p, err := p.WithServicesEnvironmentResolved(true)
	if err != nil {
		return nil, err
	}
	return p.WithServicesLabelsResolved(false)
}

// A fileGuard is a loader of include and extends that takes only what checkFile refuses, to refuse it.
type fileGuard struct {
	dir     string   // that relative paths start from
	allowed []string // what the caller named: a pipe is fine there
}

func (g fileGuard) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(g.dir, p)
}

func (g fileGuard) Accept(p string) bool {
	st, err := os.Stat(g.path(p))
	return err == nil && !slices.Contains(g.allowed, p) && !st.IsDir() && checkFile(g.path(p)) != nil
}

func (g fileGuard) Load(_ context.Context, p string) (string, error) {
	return "", checkFile(g.path(p))
}

func (g fileGuard) Dir(p string) string { return filepath.Dir(p) }

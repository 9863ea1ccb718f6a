// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/errdefs"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/project"
)

// LoadOptions say which files make the project. The zero value looks for compose.yaml in the working directory
// and its parents, as the Compose Specification has it.
type LoadOptions struct {
	Files     []string // -f; "-" is stdin
	Name      string   // -p
	Directory string   // --project-directory
	EnvFiles  []string // --env-file; nil: .env beside the first file
	Profiles  []string // --profile
	Services  []string // those named on the command line: their profiles are active; empty: all
	NoDeps    bool     // with Services: without those they depend on
	Lenient   bool     // attributes without effect are passed over in silence
	Warn      func(string)
}

// Load reads a project with compose-go and refuses, or warns of, attributes that would have no effect. It returns when ctx ends,
// whatever file is still being read.
func Load(ctx context.Context, o LoadOptions) (*types.Project, error) {
	type loaded struct {
		p   *types.Project
		err error
	}
	done := make(chan loaded, 1)
	go func() {
		p, err := load(ctx, o)
		done <- loaded{p, err}
	}()
	select {
	case l := <-done:
		return l.p, l.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func load(ctx context.Context, o LoadOptions) (*types.Project, error) {
	if o.Name != "" {
		if err := project.CheckName(o.Name); err != nil {
			return nil, err
		}
	}
	var findings []loader.UnsupportedAttribute
	po, err := cli.NewProjectOptions(o.Files,
		cli.WithWorkingDirectory(o.Directory),
		cli.WithOsEnv,
		cli.WithConfigFileEnv,
		cli.WithEnvFiles(o.EnvFiles...),
		func(po *cli.ProjectOptions) error {
			if len(o.EnvFiles) > 0 {
				return nil // the caller may well name a pipe
			}
			return checkDotEnv(po)
		},
		cli.WithDotEnv,
		cli.WithDefaultConfigPath,
		cli.WithDefaultProfiles(o.Profiles...),
		cli.WithName(o.Name),
		cli.WithResolvedPaths(true),
		cli.WithoutEnvironmentResolution,
		cli.WithoutLabelsResolution,
		cli.WithResourceLoader(fileGuard{dir: o.Directory, allowed: o.Files}),
		cli.WithLoadOptions(loader.WithSupportedAttributes(supportedPaths(), func(f []loader.UnsupportedAttribute) { findings = f })),
	)
	if err != nil {
		return nil, loadError(err, o)
	}
	p, err := po.LoadProject(ctx)
	if err == nil {
		p, err = resolveFiles(p)
	}
	if err != nil {
		for _, file := range po.ConfigPaths {
			if serr := syntax(file); serr != nil {
				return nil, serr
			}
			if _, serr := os.Stat(file); errors.Is(serr, fs.ErrNotExist) && file != "-" {
				return nil, loadError(serr, o)
			}
		}
		if len(po.ConfigPaths) == 0 {
			return nil, loadError(err, o)
		}
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return nil, fault.As(fs.ErrNotExist, explain(err, po.ConfigPaths))
		}
		return nil, explain(err, po.ConfigPaths)
	}
	if err := project.CheckName(p.Name); err != nil {
		return nil, err
	}
	if len(o.Services) > 0 {
		policy := types.IncludeDependencies
		if o.NoDeps {
			policy = types.IgnoreDependencies
		}
		for _, s := range o.Services {
			if _, ok := p.AllServices()[s]; !ok {
				return nil, noService(p, s)
			}
		}
		if p, err = p.WithServicesEnabled(o.Services...); err != nil {
			return nil, err
		}
		if p, err = p.WithSelectedServices(o.Services, policy); err != nil {
			return nil, err
		}
	}
	p = p.WithoutUnnecessaryResources()
	if o.Lenient {
		return p, nil
	}
	return p, report(p, findings, o.Warn)
}

func noService(p *types.Project, name string) error {
	return fault.Hint(fmt.Errorf("service %s: %w in project %s", name, fs.ErrNotExist, p.Name),
		"the services are: %s", strings.Join(p.ServiceNames(), " "))
}

func loadError(err error, o LoadOptions) error {
	if errors.Is(err, errdefs.ErrNotFound) && len(o.Files) == 0 && os.Getenv("COMPOSE_FILE") == "" {
		err = fmt.Errorf("no compose.yaml, compose.yml, docker-compose.yml or docker-compose.yaml here or above: %w", fs.ErrNotExist)
	}
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		if !errors.Is(err, fs.ErrNotExist) {
			err = fault.As(fs.ErrNotExist, err)
		}
		return fault.Hint(err, "name one with -f FILE, or write compose.yaml: man ctr-compose")
	}
	return err
}

// report warns of attributes without effect, and fails for those without which the container would not be what
// the file says. Each is named once, with its place.
func report(p *types.Project, findings []loader.UnsupportedAttribute, warn func(string)) error {
	var refused []string
	seen := map[string]bool{}
	for _, f := range findings {
		path := strings.ReplaceAll(f.Path.String(), ".[]", "[]")
		parts := f.Path.Parts()
		if parts[0] == "services" && len(parts) > 1 {
			if _, active := p.Services[parts[1]]; !active {
				continue
			}
		}
		line := whereIs(p.ComposeFiles, parts) + path + ": not supported yet"
		if seen[line] {
			continue
		}
		seen[line] = true
		if harmless(parts) {
			if warn != nil {
				warn(line + "; it has no effect")
			}
			continue
		}
		refused = append(refused, line)
	}
	sort.Strings(refused)
	if len(refused) == 0 {
		return nil
	}
	return fault.Hint(errors.New(strings.Join(refused, "\n")), "man ctr-compose lists the attributes that are")
}

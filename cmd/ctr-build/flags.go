// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/build"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// maxSecret bounds a secret's size.
const maxSecret = 500 << 10

// source is the flags that say what is built; build and plan have them.
type source struct {
	file, target, platform, network string
	args, labels, secrets, allow    []string
	pull                            bool
}

func (s *source) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&s.file, "file", "f", "", "`FILE` to build, - for stdin (default: Dockerfile or Containerfile in CONTEXT)")
	f.StringVar(&s.target, "target", "", "`STAGE` to build (default: the last one)")
	f.StringArrayVar(&s.args, "build-arg", nil, "`NAME=VALUE` of an ARG; NAME alone takes it from the environment")
	f.StringVar(&s.platform, "platform", "", "`PLATFORM` of the result (default: this machine's)")
	f.StringVar(&s.network, "network", "host", "`NETWORK` of RUN: host, none or a network of ctr-net")
	f.StringArrayVar(&s.allow, "allow", nil, "`RIGHT` that a Dockerfile may use: network.host")
	f.BoolVar(&s.pull, "pull", false, "fetch base images even if they are there")
}

// options are the flags as package build wants them; operands are [CONTEXT].
func (s *source) options(c *cobra.Command, root string, operands []string) (o build.Options, err error) {
	if len(operands) != 1 {
		return o, fault.Hint(fault.Usagef("found %d operands, want 1, the context", len(operands)), "%s .", c.CommandPath())
	}
	o = build.Options{
		Root: root, Context: operands[0], File: s.file, Stdin: c.InOrStdin(), Target: s.target, Platform: s.platform,
		Network: s.network, Allow: s.allow, Pull: s.pull, Environ: os.Environ(), Args: map[string]string{}, Labels: map[string]string{},
	}
	for _, a := range s.args {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				continue // as Docker: the default in the Dockerfile counts
			}
		}
		if k == "" {
			return o, fault.Usagef("--build-arg %s: want NAME=VALUE", a)
		}
		o.Args[k] = v
	}
	for _, l := range s.labels {
		k, v, _ := strings.Cut(l, "=")
		if k == "" {
			return o, fault.Usagef("--label %s: want NAME=VALUE", l)
		}
		o.Labels[k] = v
	}
	o.Secrets, err = parseSecrets(s.secrets)
	return o, err
}

// parseSecrets reads id=NAME[,src=FILE|,env=VARIABLE]; without either, the variable or file of that name. The
// content is read when a step wants it.
func parseSecrets(specs []string) (map[string]func() ([]byte, error), error) {
	all := map[string]func() ([]byte, error){}
	for _, spec := range specs {
		var id, src, env string
		for _, field := range strings.Split(spec, ",") {
			k, v, _ := strings.Cut(field, "=")
			switch k {
			case "id":
				id = v
			case "src", "source":
				src = v
			case "env":
				env = v
			case "type":
				if v != "file" && v != "env" {
					return nil, fault.Usagef("--secret %s: type %q, want file or env", spec, v)
				}
			default:
				return nil, fault.Usagef("--secret %s: found %q, want id=NAME,src=FILE or id=NAME,env=VARIABLE", spec, field)
			}
		}
		if id == "" {
			return nil, fault.Usagef("--secret %s: no id", spec)
		}
		if src == "" && env == "" {
			if _, ok := os.LookupEnv(id); ok {
				env = id
			} else {
				src = id
			}
		}
		all[id] = func() ([]byte, error) { return readSecret(src, env) }
	}
	return all, nil
}

func readSecret(src, env string) ([]byte, error) {
	if src == "" {
		v, ok := os.LookupEnv(env)
		if !ok {
			return nil, errors.New("environment variable " + env + " is not set")
		}
		return []byte(v), nil
	}
	f, err := os.Open(src)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = errors.New(src + ": larger than 500 KiB, too large for a secret")
	}
	return data, err
}

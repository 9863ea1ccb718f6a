// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/build"
	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// mainVerb makes the tool's own command the main verb: ctr-build CONTEXT.
func mainVerb(c *cobra.Command, root *string) {
	var s source
	var o build.Options
	var iidfile, progress string
	c.Use = "ctr-build [OPTION]... CONTEXT"
	s.flags(c)
	f := c.Flags()
	f.StringArrayVarP(&o.Names, "tag", "t", nil, "`NAME` of the image in the default layout; repeatable")
	f.StringArrayVarP(&o.Outputs, "output", "o", nil, "also put the image at `DEST`: oci:DIR:NAME, oci-archive:FILE or docker-archive:FILE")
	f.StringArrayVar(&s.labels, "label", nil, "`NAME=VALUE` added to the image's labels")
	f.StringArrayVar(&s.secrets, "secret", nil, "`SECRET` for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE")
	f.StringVar(&iidfile, "iidfile", "", "write the config's digest, Docker's image ID, to `FILE`")
	f.BoolVar(&o.NoCache, "no-cache", false, "do every step again")
	f.BoolVar(&o.Keep, "keep-failed", false, "keep the bundle of a RUN step that fails")
	f.StringVar(&progress, "progress", "plain", "`FORM` of progress: plain or none")
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if progress != "plain" && progress != "none" {
			return fault.Usagef("--progress=%s: want plain or none", progress)
		}
		in, err := s.options(c, *root, args)
		if err != nil {
			return err
		}
		in.Names, in.Outputs, in.NoCache, in.Keep = o.Names, o.Outputs, o.NoCache, o.Keep
		in.Output, in.Quiet, in.Explain = c.ErrOrStderr(), cli.Quiet(c) || progress == "none", cli.Verbose(c)
		res, err := build.Build(c.Context(), in)
		if err != nil {
			return err
		}
		if iidfile != "" {
			if err := atomicfile.Write(iidfile, []byte(res.Config.String()), 0o644); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), res.Digest)
		return err
	}
}

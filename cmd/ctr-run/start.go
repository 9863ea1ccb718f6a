// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/runtime"
)

// newStart is "ctr-run start": let a created container's init execute the user's program.
func newStart() *cobra.Command {
	return &cobra.Command{
		Use:   "start ID",
		Short: "start the program of a created container",
		Args:  cobra.ExactArgs(1),
		RunE: verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
			return rt.Start(c.Context(), args[0])
		}),
	}
}

// newPause is "ctr-run pause".
func newPause() *cobra.Command {
	return &cobra.Command{
		Use:   "pause ID",
		Short: "freeze all processes of a container",
		Args:  cobra.ExactArgs(1),
		RunE: verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
			return rt.Pause(args[0])
		}),
	}
}

// newResume is "ctr-run resume".
func newResume() *cobra.Command {
	return &cobra.Command{
		Use:   "resume ID",
		Short: "let a paused container go on",
		Args:  cobra.ExactArgs(1),
		RunE: verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
			return rt.Resume(args[0])
		}),
	}
}

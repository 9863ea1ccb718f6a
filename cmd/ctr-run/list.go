// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/cli"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime"
	"github.com/ctr-tools/ctr/pkg/state"
	"github.com/ctr-tools/ctr/pkg/supervise"
)

// newState is "ctr-run state": the OCI state as JSON.
func newState() *cobra.Command {
	return &cobra.Command{
		Use:   "state ID",
		Short: "print the state of a container as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
			doc, err := stateOf(rt, stateRoot(c), args[0])
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(doc)
			return err
		}),
	}
}

// An entry is a container in "list --format json", as runc prints it.
type entry struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      state.Status      `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
	*supervise.Fields
}

// newList is "ctr-run list".
func newList() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "list [--quiet] [--format table|json]",
		Short: "list the containers of this root",
	}
	c.Flags().StringVarP(&format, "format", "f", "table", "`FORMAT`: table, or json (an array)")
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		if err := cli.CheckFormat(format); err != nil {
			return err
		}
		list, err := allContainers(rt, stateRoot(c))
		if err != nil {
			return err
		}
		entries := make([]entry, 0, len(list))
		owners := map[int]string{}
		for _, s := range list {
			s, fields := observed(stateRoot(c), s.ID, s)
			e := entry{Fields: fields, OCIVersion: state.Version, ID: s.ID, Pid: s.Pid, Status: s.Status, Bundle: s.Bundle, Rootfs: s.Rootfs,
				Created: s.Created, Annotations: s.Annotations, Owner: ownerName(owners, s.Owner)}
			if s.Status != state.Running && s.Status != state.Created && s.Status != state.Paused {
				e.Pid = 0
			}
			entries = append(entries, e)
		}
		return printList(c, entries, format)
	})
	return c
}

func printList(c *cobra.Command, entries []entry, format string) error {
	out := c.OutOrStdout()
	if cli.Quiet(c) {
		for _, e := range entries {
			fmt.Fprintln(out, e.ID)
		}
		return nil
	}
	if format == "json" {
		return json.NewEncoder(out).Encode(entries)
	}
	rows := make([][]string, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, []string{e.ID, strconv.Itoa(e.Pid), string(e.Status), e.Bundle, e.Created.Format(time.RFC3339Nano), e.Owner})
	}
	return cli.Table(out, []string{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}, rows)
}

func ownerName(known map[int]string, uid int) string {
	if name, ok := known[uid]; ok {
		return name
	}
	name := "#" + strconv.Itoa(uid)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = u.Username
	}
	known[uid] = name
	return name
}

// newPs is "ctr-run ps": the processes of a container.
func newPs() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "ps [--format table|json] ID [ps option…]",
		Short: "list the processes of a container",
		Args:  cobra.MinimumNArgs(1),
	}
	c.Flags().SetInterspersed(false)
	c.Flags().StringVarP(&format, "format", "f", "table", "`FORMAT`: table (of ps(1)), or json (an array of process numbers)")
	c.RunE = verb(func(c *cobra.Command, rt *runtime.Runtime, args []string) error {
		pids, err := rt.Pids(args[0])
		if err != nil {
			return err
		}
		switch format {
		case "json":
			if pids == nil {
				pids = []int{}
			}
			return json.NewEncoder(c.OutOrStdout()).Encode(pids)
		case "table":
			return psTable(c, pids, args[1:])
		}
		return fault.Usagef("--format=%s: want table or json", format)
	})
	return c
}

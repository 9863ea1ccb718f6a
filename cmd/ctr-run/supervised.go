// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/ctr-tools/ctr/pkg/runtime"
	"github.com/ctr-tools/ctr/pkg/state"
	"github.com/ctr-tools/ctr/pkg/supervise"
)

// What the runtime's own verbs do beside, where a container is supervised.

// deleteContainer is runtime.Delete that also ends and forgets supervision.
func deleteContainer(ctx context.Context, rt *runtime.Runtime, root, id string, force bool) error {
	if err := supervise.BeforeDelete(ctx, root, id, force); err != nil {
		return err
	}
	err := rt.Delete(ctx, id, force)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	known, forgotten := supervise.Forget(root, id)
	if known {
		err = nil // killed between two runs: only the supervisor's directory was there
	}
	return errors.Join(err, forgotten)
}

// observed is a container as the runtime sees it (nil: it does not, for a moment in a restart) and as its supervisor, if any, says.
func observed(root, id string, seen *runtime.Container) (*runtime.Container, *supervise.Fields) {
	status := ""
	if seen != nil {
		status = string(seen.Status)
	}
	fields, status, record, err := supervise.Merge(root, id, status)
	if err != nil {
		return seen, nil
	}
	if seen == nil {
		seen = &runtime.Container{State: &state.State{ID: id, Bundle: record.Bundle, Created: record.CreatedAt}}
	}
	seen.Status = state.Status(status)
	return seen, &fields
}

// allContainers are the runtime's and those that only a supervisor knows, sorted by id. The runtime's are read first:
// a container in the middle of a restart is in one of the two.
func allContainers(rt *runtime.Runtime, root string) ([]*runtime.Container, error) {
	list, err := rt.List()
	if err != nil {
		return nil, err
	}
	ids, err := supervise.IDs(root)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if slices.ContainsFunc(list, func(c *runtime.Container) bool { return c.ID == id }) {
			continue
		}
		if c, fields := observed(root, id, nil); fields != nil {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *runtime.Container) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// stateOf is the OCI state of a container with what supervision adds.
func stateOf(rt *runtime.Runtime, root, id string) ([]byte, error) {
	seen, err := rt.State(id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c, fields := observed(root, id, seen)
	if c == nil {
		return nil, err
	}
	doc := c.OCI(c.Status)
	if fields == nil {
		return doc, nil
	}
	more, err := json.MarshalIndent(fields, "", "  ")
	if err != nil {
		return nil, err
	}
	doc = bytes.TrimRight(doc, "} \n")
	return slices.Concat(doc, []byte(","), more[1:], []byte("\n")), nil
}

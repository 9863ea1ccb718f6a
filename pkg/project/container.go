// SPDX-License-Identifier: Apache-2.0

package project

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// A Container is what the annotations of a bundle say about it.
type Container struct {
	Project    string
	Service    string
	Number     int // from 1; of a one-off too
	OneOff     bool
	ConfigHash string   // hex SHA-256 of what it was made from (spec/project.md, Change)
	Image      string   // reference
	Publish    []string // ctr-net's --publish values
}

// Annotations are c as the annotations of a bundle.
func (c Container) Annotations() map[string]string {
	a := map[string]string{
		LabelProject: c.Project, LabelService: c.Service, LabelNumber: strconv.Itoa(c.Number), LabelOneOff: "False",
	}
	if c.OneOff {
		a[LabelOneOff] = "True"
	}
	if c.ConfigHash != "" {
		a[LabelConfigHash] = c.ConfigHash
	}
	if c.Image != "" {
		a[LabelImage] = c.Image
	}
	if len(c.Publish) > 0 {
		p, _ := json.Marshal(c.Publish) // strings: cannot fail
		a[LabelPublish] = string(p)
	}
	return a
}

// Parse reads the annotations of a bundle in the directory of the project named.
func Parse(project string, a map[string]string) (Container, error) {
	c := Container{
		Project: a[LabelProject], Service: a[LabelService],
		ConfigHash: a[LabelConfigHash], Image: a[LabelImage],
	}
	if c.Project != project {
		return c, fmt.Errorf("annotation %s: found %q, want %q", LabelProject, c.Project, project)
	}
	if c.Service == "" {
		return c, fmt.Errorf("annotation %s: found none, want the service's name", LabelService)
	}
	n, err := strconv.Atoi(a[LabelNumber])
	if err != nil || n < 1 || strconv.Itoa(n) != a[LabelNumber] {
		return c, fmt.Errorf("annotation %s: found %q, want a number from 1", LabelNumber, a[LabelNumber])
	}
	c.Number = n
	switch a[LabelOneOff] {
	case "True":
		c.OneOff = true
	case "False", "":
	default:
		return c, fmt.Errorf("annotation %s: found %q, want True or False", LabelOneOff, a[LabelOneOff])
	}
	if p, ok := a[LabelPublish]; ok {
		if err := json.Unmarshal([]byte(p), &c.Publish); err != nil {
			return c, fmt.Errorf("annotation %s: found %q, want a JSON array of strings", LabelPublish, p)
		}
	}
	return c, nil
}

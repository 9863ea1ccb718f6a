// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// maxFileBytes bounds a file that is read a second time to name a line in it.
const maxFileBytes = 4 << 20

// whereIs names file and line of an attribute as "compose.yaml:12: ", or nothing if it is in none of the files
// (stdin, included files). The last file that has it counts: it overrides the others.
func whereIs(files []string, path []string) (where string) {
	best := 0
	for _, file := range files {
		doc, err := parse(file)
		if err != nil || len(doc.Content) == 0 {
			continue
		}
		line, depth := descend(doc.Content[0], path)
		if depth > 0 && depth >= best {
			best = depth
			where = fmt.Sprintf("%s:%d: ", shorten(file), line)
		}
	}
	return where
}

// syntax says what is wrong with a file as YAML, with its name.
func syntax(file string) error {
	if _, err := parse(file); err != nil {
		return fmt.Errorf("%s: %w", shorten(file), err)
	}
	return nil
}

// parse reads a regular file as YAML; another kind (stdin, a pipe) is read once only, so it gives an empty document.
func parse(file string) (*yaml.Node, error) {
	var doc yaml.Node
	st, err := os.Stat(file)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxFileBytes {
		return &doc, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return &doc, yaml.Unmarshal(data, &doc)
}

// descend follows path as far as the node has it and returns the line of the last key found and how many there
// were.
func descend(n *yaml.Node, path []string) (line, depth int) {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if len(path) > 0 && n.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(path[0]); err == nil && i >= 0 && i < len(n.Content) {
			l, d := descend(n.Content[i], path[1:])
			if d == 0 {
				l = n.Content[i].Line
			}
			return l, d + 1
		}
	}
	if len(path) == 0 || n.Kind != yaml.MappingNode {
		return 0, 0
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == path[0] {
			l, d := descend(n.Content[i+1], path[1:])
			if d == 0 {
				l = n.Content[i].Line
			}
			return l, d + 1
		}
	}
	return 0, 0
}

// valueAt is the scalar that the last file to have the attribute gives it.
func valueAt(files []string, path []string) (value string) {
	for _, file := range files {
		doc, err := parse(file)
		if err != nil || len(doc.Content) == 0 {
			continue
		}
		if n := nodeAt(doc.Content[0], path); n != nil && n.Kind == yaml.ScalarNode {
			value = n.Value
		}
	}
	return value
}

// nodeAt finds the node at path, through mappings and sequences.
func nodeAt(n *yaml.Node, path []string) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if len(path) == 0 {
		return n
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == path[0] {
				return nodeAt(n.Content[i+1], path[1:])
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(path[0]); err == nil && i >= 0 && i < len(n.Content) {
			return nodeAt(n.Content[i], path[1:])
		}
	}
	return nil
}

// shorten makes a path relative to the working directory where that leads down.
func shorten(file string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, file); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return file
}

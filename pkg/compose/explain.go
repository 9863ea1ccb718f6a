// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// pathInText finds a document path in a message of the loader: services.web.ports.0, 'services[web].mem_limit'.
var pathInText = regexp.MustCompile(`'?\b((?:services|networks|volumes|secrets|configs)(?:\.[A-Za-z0-9_-]+|\[[A-Za-z0-9_.-]+\])+)'?`)

// heads are what the loader puts in front, which the place says better.
var heads = regexp.MustCompile(`^(?:decoding failed due to the following error\(s\):|validating \S+:)`)

// reworded are phrases of the schema library that mean nothing to who writes the file.
var reworded = strings.NewReplacer("false schema", "no such attribute")

// An explained error of the loader names file, line, path and value found. The loader's own errors hold the
// path only as text, so this decorates and decides nothing: without a path the message stays as it is.
type explained struct {
	text string
	err  error
}

func (e explained) Error() string { return e.text }
func (e explained) Unwrap() error { return e.err }

func explain(err error, files []string) error {
	text := err.Error()
	text = reworded.Replace(strings.Join(strings.Fields(heads.ReplaceAllString(text, "")), " "))
	m := pathInText.FindStringSubmatchIndex(text)
	if m == nil {
		if path, value := wrongPort(files); path != nil {
			return explained{whereIs(files, path) + strings.Join(path, ".") + fmt.Sprintf(": found %q: ", value) + text, err}
		}
		return explained{text, err}
	}
	path := strings.NewReplacer("[", ".", "]", "").Replace(text[m[2]:m[3]])
	parts := strings.Split(path, ".")
	found := ""
	if v := valueAt(files, parts); v != "" && !strings.Contains(text, v) {
		found = fmt.Sprintf("found %q: ", v)
	}
	rest := strings.TrimPrefix(strings.TrimSpace(text[:m[0]]+text[m[1]:]), ": ")
	return explained{whereIs(files, parts) + path + ": " + found + rest, err}
}

// wrongPort finds the first short port that cannot be parsed: the loader does not say which it was.
func wrongPort(files []string) (path []string, value string) {
	for _, file := range files {
		doc, err := parse(file)
		if err != nil || len(doc.Content) == 0 {
			continue
		}
		services := nodeAt(doc.Content[0], []string{"services"})
		if services == nil || services.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(services.Content); i += 2 {
			ports := nodeAt(services.Content[i+1], []string{"ports"})
			if ports == nil || ports.Kind != yaml.SequenceNode {
				continue
			}
			for j, p := range ports.Content {
				if p.Kind != yaml.ScalarNode || strings.Contains(p.Value, "$") {
					continue
				}
				if _, err := types.ParsePortConfig(p.Value); err != nil {
					return []string{"services", services.Content[i].Value, "ports", strconv.Itoa(j)}, p.Value
				}
			}
		}
	}
	return nil, ""
}

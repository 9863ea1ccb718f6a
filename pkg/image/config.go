// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Healthcheck is the HEALTHCHECK of a Dockerfile.
type Healthcheck = dockerspec.HealthcheckConfig

// Config is an image config: OCI's, with what Docker keeps beside it in the same JSON object "config", and
// whatever else was there. Reading and writing one loses nothing.
type Config struct {
	ocispec.Image
	Healthcheck *Healthcheck
	OnBuild     []string
	Shell       []string
	StopTimeout *int // seconds

	image, config map[string]json.RawMessage // fields unknown to us, at the top and in "config"
}

// docker is the part of "config" that OCI does not have.
type docker struct {
	Healthcheck *Healthcheck `json:",omitempty"`
	OnBuild     []string     `json:",omitempty"`
	Shell       []string     `json:",omitempty"`
	StopTimeout *int         `json:",omitempty"`
}

var (
	imageFields  = []string{"created", "author", "architecture", "variant", "os", "os.version", "os.features", "config", "rootfs", "history"}
	configFields = []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "ArgsEscaped",
		"Healthcheck", "OnBuild", "Shell", "StopTimeout"}
)

// UnmarshalJSON reads an image config.
func (c *Config) UnmarshalJSON(data []byte) error {
	var n Config
	var outer struct {
		Config docker `json:"config"`
	}
	var raw struct {
		Config map[string]json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(data, &n.Image); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &outer); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &n.image); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	d := outer.Config
	n.Healthcheck, n.OnBuild, n.Shell, n.StopTimeout = d.Healthcheck, d.OnBuild, d.Shell, d.StopTimeout
	n.image, n.config = without(n.image, imageFields), without(raw.Config, configFields)
	*c = n
	return nil
}

func without(m map[string]json.RawMessage, known []string) map[string]json.RawMessage {
	for k := range m {
		for _, f := range known {
			if strings.EqualFold(k, f) { // encoding/json took it
				delete(m, k)
			}
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// MarshalJSON writes the image config; keys are in alphabetical order, so that equal configs are equal bytes.
func (c Config) MarshalJSON() ([]byte, error) {
	top, err := fields(c.Image, c.image)
	if err != nil {
		return nil, err
	}
	inner, err := fields(c.Image.Config, c.config)
	if err != nil {
		return nil, err
	}
	ext, err := fields(docker{c.Healthcheck, c.OnBuild, c.Shell, c.StopTimeout}, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range ext {
		inner[k] = v
	}
	if top["config"], err = json.Marshal(inner); err != nil {
		return nil, err
	}
	return json.Marshal(top)
}

// fields are v's JSON fields over the unknown ones.
func fields(v any, unknown map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	m := map[string]json.RawMessage{}
	for k, f := range unknown {
		m[k] = f
	}
	return m, json.Unmarshal(data, &m)
}

// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// A HealthConfig is a health check as image configs have it (Docker's "Healthcheck"). Durations of 0 are the
// defaults: interval 30 s, timeout 30 s, 3 retries, no start period, start interval 5 s.
type HealthConfig struct {
	Test          []string      `json:"Test,omitempty"`          // NONE; CMD, argv…; CMD-SHELL, command
	Interval      time.Duration `json:"Interval,omitempty"`      // between the end of a check and the next
	Timeout       time.Duration `json:"Timeout,omitempty"`       // then the check is killed and has failed
	Retries       int           `json:"Retries,omitempty"`       // failures in a row that make unhealthy
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`   // failures do not count so long after the start
	StartInterval time.Duration `json:"StartInterval,omitempty"` // interval during the start period
}

// ParseHealthTest reads a health check's command: a JSON array in the form of Test, or a line for the shell.
func ParseHealthTest(s string) ([]string, error) {
	if strings.HasPrefix(s, "[") {
		var test []string
		if err := json.Unmarshal([]byte(s), &test); err != nil {
			return nil, fault.Usagef("--health-cmd: %v, want a shell command or [\"CMD\",\"arg\",…]", err)
		}
		return test, nil
	}
	return []string{"CMD-SHELL", s}, nil
}

// over returns h with what it leaves open taken from base.
func (h *HealthConfig) over(base *HealthConfig) *HealthConfig {
	if h == nil || base == nil {
		if h == nil {
			return base
		}
		return h
	}
	c := *h
	if len(c.Test) == 0 {
		c.Test = base.Test
	}
	for _, d := range []struct{ own, base *time.Duration }{
		{&c.Interval, &base.Interval}, {&c.Timeout, &base.Timeout},
		{&c.StartPeriod, &base.StartPeriod}, {&c.StartInterval, &base.StartInterval},
	} {
		if *d.own == 0 {
			*d.own = *d.base
		}
	}
	if c.Retries == 0 {
		c.Retries = base.Retries
	}
	return &c
}

func (h *HealthConfig) disabled() bool {
	return h == nil || len(h.Test) == 0 || h.Test[0] == "NONE"
}

func (h *HealthConfig) check() error {
	if h == nil || len(h.Test) == 0 {
		return nil
	}
	switch kind := h.Test[0]; {
	case kind == "NONE", kind == "CMD" && len(h.Test) > 1, kind == "CMD-SHELL" && len(h.Test) == 2:
	default:
		return fmt.Errorf("health check %q: want NONE, CMD and arguments, or CMD-SHELL and a command", h.Test)
	}
	if h.Interval < 0 || h.Timeout < 0 || h.StartPeriod < 0 || h.StartInterval < 0 || h.Retries < 0 {
		return errors.New("health check: a duration or retries below 0")
	}
	return nil
}

func (h *HealthConfig) argv() []string {
	if h.Test[0] == "CMD-SHELL" {
		return []string{"/bin/sh", "-c", h.Test[1]}
	}
	return h.Test[1:]
}

// Health statuses.
const (
	Starting  = "starting"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// Limits of health.json.
const (
	maxProbes      = 5
	maxOutputBytes = 4096
)

// Health is the outcome of the checks so far (health.json).
type Health struct {
	Status        string  `json:"status"`
	FailingStreak int     `json:"failingStreak"`
	Log           []Probe `json:"log"` // the last five
}

// A Probe is one health check.
type Probe struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"` // -1: it did not end in time
	Output   string    `json:"output"`   // at most 4096 bytes
}

// LoadHealth reads the health of a container. One without health check is fs.ErrNotExist.
func LoadHealth(root, id string) (*Health, error) {
	data, err := readSmall(filepath.Join(Dir(root, id), healthFile))
	if err != nil {
		return nil, err
	}
	return parseHealth(data)
}

func parseHealth(data []byte) (*Health, error) {
	h := new(Health)
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("%s: %w", healthFile, err)
	}
	switch h.Status {
	case Starting, Healthy, Unhealthy:
	default:
		return nil, fmt.Errorf("%s: status %q, want starting, healthy or unhealthy", healthFile, h.Status)
	}
	if len(h.Log) > maxProbes {
		return nil, fmt.Errorf("%s: log of %d, want at most %d", healthFile, len(h.Log), maxProbes)
	}
	return h, nil
}

// add enters a probe that ended at a time since the container's start.
func (h *Health) add(p Probe, c *HealthConfig, sinceStart time.Duration) {
	if len(h.Log) == maxProbes {
		h.Log = append(h.Log[:0], h.Log[1:]...)
	}
	h.Log = append(h.Log, p)
	switch {
	case p.ExitCode == 0:
		h.Status, h.FailingStreak = Healthy, 0
	case h.Status == Starting && sinceStart < c.StartPeriod:
		// A start may take this long.
	default:
		h.FailingStreak++
		if h.FailingStreak >= or(c.Retries, 3) {
			h.Status = Unhealthy
		}
	}
}

// pause is the time until the next probe.
func (h *Health) pause(c *HealthConfig, sinceStart time.Duration) time.Duration {
	interval := or(c.Interval, 30*time.Second)
	if h.Status == Starting && sinceStart < c.StartPeriod {
		return min(interval, or(c.StartInterval, 5*time.Second))
	}
	return interval
}

func or[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// Options say how a container is supervised. The zero value is a container that is started once, with
// stdin closed, stopped by SIGTERM and, 10 s later, SIGKILL.
type Options struct {
	Restart     Policy        `json:"restart"`
	StopSignal  int           `json:"stopSignal,omitempty"`  // 0: the bundle's, else SIGTERM
	StopTimeout *int          `json:"stopTimeout,omitempty"` // seconds until SIGKILL, below 0: for ever; nil: 10
	Health      *HealthConfig `json:"health,omitempty"`
	OnUnhealthy string        `json:"onUnhealthy,omitempty"` // "none" or "", "restart", "stop"
	Interactive bool          `json:"interactive,omitempty"` // keep the container's stdin open
	Terminal    bool          `json:"terminal,omitempty"`    // config.json's process.terminal
	LogBytes    int64         `json:"logBytes,omitempty"`    // log.WriterOptions.SizeBytes
	LogFiles    int           `json:"logFiles,omitempty"`    // log.WriterOptions.Files
	Owner       [2]int        `json:"owner"`                 // of the stdio pipes: uid and gid of the container's process on the host
}

// A Policy says when a container that ended is started again.
type Policy struct {
	Name string `json:"name"`          // "no" or "", "on-failure", "always", "unless-stopped"
	Max  int    `json:"max,omitempty"` // restarts for on-failure; 0: no bound
}

// ParsePolicy reads no, on-failure[:N], always or unless-stopped.
func ParsePolicy(s string) (Policy, error) {
	name, max, bounded := strings.Cut(s, ":")
	p := Policy{Name: name}
	if bounded {
		n, err := strconv.Atoi(max)
		if err != nil || n < 0 || name != "on-failure" {
			return p, fault.Usagef("--restart=%s: want no, on-failure[:N], always or unless-stopped", s)
		}
		p.Max = n
	}
	if err := p.check(); err != nil {
		return p, fault.As(fault.ErrUsage, fmt.Errorf("--restart=%s: %w", s, err))
	}
	return p, nil
}

func (p Policy) check() error {
	switch p.Name {
	case "", "no", "on-failure", "always", "unless-stopped":
		return nil
	}
	return fmt.Errorf("restart policy %q, want no, on-failure, always or unless-stopped", p.Name)
}

// again says whether a container that ended with code after restarts restarts is started again.
func (p Policy) again(code, restarts int) bool {
	switch p.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (p.Max == 0 || restarts < p.Max)
	}
	return false
}

// Back-off between restarts: it doubles, and starts anew after a run of healthyRun.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = time.Minute
	healthyRun   = 10 * time.Second
)

// backoff is the pause before the next start, after a pause of last and a run of ran.
func backoff(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= healthyRun {
		return firstBackoff
	}
	return min(2*last, lastBackoff)
}

func (o *Options) check() error {
	if err := o.Restart.check(); err != nil {
		return err
	}
	switch o.OnUnhealthy {
	case "", "none", "restart", "stop":
	default:
		return fmt.Errorf("on unhealthy: %q, want none, restart or stop", o.OnUnhealthy)
	}
	if o.StopSignal < 0 || o.StopSignal > 64 {
		return fmt.Errorf("stop signal %d, want 1 to 64", o.StopSignal)
	}
	return o.Health.check()
}

func (o *Options) stopSignal() unix.Signal {
	if o.StopSignal > 0 {
		return unix.Signal(o.StopSignal)
	}
	return unix.SIGTERM
}

// stopTimeout is the time between stop signal and SIGKILL; below 0: for ever.
func (o *Options) stopTimeout() time.Duration {
	if o.StopTimeout != nil {
		return time.Duration(*o.StopTimeout) * time.Second
	}
	return 10 * time.Second
}

// ParseSignal reads a signal's name, with or without SIG, or its number.
func ParseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok { // systemd's, in images: SIGRTMIN+3
		n, err := strconv.Atoi(strings.TrimPrefix(rest, "+"))
		if rest == "" {
			n, err = 0, nil
		}
		if err == nil && n >= 0 && n <= 30 {
			return 34 + n, nil
		}
	}
	return 0, fault.Usagef("signal %q: want a name such as TERM or a number from 1 to 64", s)
}

// annotationStopSignal is image-spec's (image-spec/annotations.md, conversion.md).
const annotationStopSignal = "org.opencontainers.image.stopSignal"

// fromBundle adds what the bundle says and the options do not: terminal, stop signal, the owner of stdio,
// the image's health check.
func (o *Options) fromBundle(b *bundle.Bundle) error {
	var config struct {
		Process *struct {
			Terminal bool `json:"terminal"`
			User     struct {
				UID uint32 `json:"uid"`
				GID uint32 `json:"gid"`
			} `json:"user"`
		} `json:"process"`
		Annotations map[string]string `json:"annotations"`
		Linux       struct {
			UIDMappings []idMapping `json:"uidMappings"`
			GIDMappings []idMapping `json:"gidMappings"`
		} `json:"linux"`
	}
	if err := b.ReadJSON(bundle.ConfigFile, &config); err != nil {
		return err
	}
	if config.Process == nil {
		return fmt.Errorf("%s: process: missing, want the process to supervise", b.Path(bundle.ConfigFile))
	}
	o.Terminal = config.Process.Terminal
	o.Owner = [2]int{onHost(config.Linux.UIDMappings, config.Process.User.UID), onHost(config.Linux.GIDMappings, config.Process.User.GID)}
	if s := config.Annotations[annotationStopSignal]; s != "" && o.StopSignal == 0 {
		n, err := ParseSignal(s)
		if err != nil {
			return fmt.Errorf("%s: annotations.%s: %w", b.Path(bundle.ConfigFile), annotationStopSignal, err)
		}
		o.StopSignal = n
	}
	var image bundle.Image
	switch err := b.ReadJSON(bundle.ImageFile, &image); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		var c struct {
			Config struct {
				Healthcheck *HealthConfig
				StopTimeout *int
			} `json:"config"`
		}
		if len(image.Config) > 0 {
			if err := json.Unmarshal(image.Config, &c); err != nil {
				return fmt.Errorf("%s: config: %w", b.Path(bundle.ImageFile), err)
			}
		}
		if o.StopTimeout == nil {
			o.StopTimeout = c.Config.StopTimeout
		}
		o.Health = o.Health.over(c.Config.Healthcheck)
	}
	if o.Health.disabled() {
		o.Health = nil
	}
	return o.check()
}

type idMapping struct {
	ContainerID, HostID, Size uint32
}

// onHost maps an id through a user namespace's mappings; -1: it is not mapped, and nothing can be given to it.
func onHost(mappings []idMapping, id uint32) int {
	if len(mappings) == 0 {
		return int(id)
	}
	for _, m := range mappings {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + (id - m.ContainerID))
		}
	}
	return -1
}

// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// setVolumes makes ctr-vol attach's arguments. Anonymous volumes get a name from the container's id and their
// target, so that a container made anew finds its data again.
func (c *Container) setVolumes(p *types.Project, s types.ServiceConfig) error {
	for _, t := range sorted(s.Tmpfs) {
		c.volumes = append(c.volumes, "--tmpfs", t)
	}
	if s.NetworkMode == "host" {
		c.mounts = append(c.mounts, "/etc/resolv.conf:/etc/resolv.conf:ro", "/etc/hosts:/etc/hosts:ro")
	}
	for _, v := range s.Volumes {
		switch v.Type {
		case types.VolumeTypeTmpfs:
			c.volumes = append(c.volumes, "--tmpfs", v.Target+tmpfsOptions(v))
		case types.VolumeTypeBind:
			if b := v.Bind; b != nil && bool(b.CreateHostPath) && missing(v.Source) {
				c.makeDirs = append(c.makeDirs, v.Source)
			}
			if err := c.mount(v, v.Source, bindOptions(v)); err != nil {
				return err
			}
		case types.VolumeTypeVolume:
			source := anonymousVolume(c.ID, v.Target)
			if v.Source != "" {
				d, ok := p.Volumes[v.Source]
				if !ok {
					return fmt.Errorf("volumes: %s: no volume of this name at the top level", v.Source)
				}
				source = d.Name
			}
			var opts []string
			if v.Volume != nil && v.Volume.NoCopy {
				opts = append(opts, "nocopy")
			}
			if v.Volume != nil && v.Volume.Subpath != "" {
				return fmt.Errorf("volumes: %s: volume.subpath is not supported yet", v.Target)
			}
			if err := c.mount(v, source, opts); err != nil {
				return err
			}
		default:
			return fmt.Errorf("volumes: %s: type %q is not supported yet; want volume, bind or tmpfs", v.Target, v.Type)
		}
	}
	return nil
}

func (c *Container) mount(v types.ServiceVolumeConfig, source string, opts []string) error {
	if v.ReadOnly {
		opts = append([]string{"ro"}, opts...)
	}
	if strings.Contains(source, ":") || strings.Contains(v.Target, ":") {
		if strings.ContainsAny(source+v.Target, ",\"") {
			return fmt.Errorf("volumes: %s: found a colon and a comma in one path, want one of them at most", source)
		}
		m := "type=" + v.Type + ",src=" + source + ",dst=" + v.Target
		for _, o := range opts {
			m += "," + o
		}
		c.volumes = append(c.volumes, "--mount", m)
		return nil
	}
	spec := source + ":" + v.Target
	if len(opts) > 0 {
		spec += ":" + strings.Join(opts, ",")
	}
	c.mounts = append(c.mounts, spec)
	return nil
}

func bindOptions(v types.ServiceVolumeConfig) (opts []string) {
	if v.Bind != nil && v.Bind.Propagation != "" {
		opts = append(opts, v.Bind.Propagation)
	}
	return opts
}

func tmpfsOptions(v types.ServiceVolumeConfig) string {
	var opts []string
	if v.ReadOnly {
		opts = append(opts, "ro")
	}
	if v.Tmpfs != nil && v.Tmpfs.Size != 0 {
		opts = append(opts, "size="+strconv.FormatInt(int64(v.Tmpfs.Size), 10))
	}
	if v.Tmpfs != nil && v.Tmpfs.Mode != 0 {
		opts = append(opts, fmt.Sprintf("mode=%04o", v.Tmpfs.Mode))
	}
	if opts == nil {
		return ""
	}
	return ":" + strings.Join(opts, ",")
}

func anonymousVolume(id, target string) string {
	sum := sha256.Sum256([]byte(target))
	return id + "_" + hex.EncodeToString(sum[:6])
}

// setNetworks makes ctr-net attach's arguments. The service's name and the container's are aliases on each
// network, for one-offs only what was asked for.
func (c *Container) setNetworks(p *types.Project, s types.ServiceConfig) error {
	if s.NetworkMode != "" && s.NetworkMode != "bridge" {
		if len(s.Ports) > 0 && s.NetworkMode != "host" {
			return fmt.Errorf("ports: cannot be published with network_mode %s", s.NetworkMode)
		}
		return nil // configPatch refuses what it does not know
	}
	keys := make([]string, 0, len(s.Networks))
	for k := range s.Networks {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := priority(s.Networks[keys[i]]), priority(s.Networks[keys[j]])
		return a > b || a == b && keys[i] < keys[j]
	})
	if len(keys) == 0 {
		return nil
	}
	names := []string{c.ID}
	if !c.OneOff {
		names = []string{c.Service, c.ID}
	}
	f := []string{"--hostname", c.hostname(s)}
	f = append(f, flags("--alias", names)...)
	var ips, macs []string
	for _, k := range keys {
		n, ok := p.Networks[k]
		if !ok {
			return fmt.Errorf("networks: %s: no network of this name at the top level", k)
		}
		c.networks = append(c.networks, n.Name)
		at := s.Networks[k]
		if at == nil {
			continue
		}
		of := "" // with one network, names need no network
		if len(keys) > 1 {
			of = n.Name + "="
		}
		for _, a := range sorted(at.Aliases) {
			if !c.OneOff {
				f = append(f, "--alias", of+a)
			}
		}
		if at.Ipv4Address != "" && !c.OneOff {
			ips = append(ips, of+at.Ipv4Address)
		}
		if at.MacAddress != "" {
			macs = append(macs, of+at.MacAddress)
		}
	}
	if s.MacAddress != "" && macs == nil {
		macs = []string{s.MacAddress}
	}
	f = append(f, flags("--ip", ips)...)
	f = append(f, flags("--mac", macs)...)
	var hosts []string
	for host, addrs := range s.ExtraHosts {
		for _, a := range addrs {
			hosts = append(hosts, host+":"+a)
		}
	}
	f = append(f, flags("--add-host", sorted(hosts))...)
	f = append(f, flags("--dns", s.DNS)...)
	f = append(f, flags("--dns-search", s.DNSSearch)...)
	f = append(f, flags("--dns-option", s.DNSOpts)...)
	for _, port := range s.Ports {
		spec, err := publishSpec(port, c.Number)
		if err != nil {
			return err
		}
		c.Publish = append(c.Publish, spec)
	}
	c.join = append(f, flags("--publish", c.Publish)...)
	return nil
}

func priority(n *types.ServiceNetworkConfig) int {
	if n == nil {
		return 0
	}
	return n.Priority
}

// publishSpec is a port of the n-th container as ctr-net takes it: [IP:][HOSTPORT:]PORT[/PROTO]. Of a range of
// host ports the n-th container gets the n-th.
func publishSpec(port types.ServicePortConfig, n int) (string, error) {
	spec := strconv.FormatUint(uint64(port.Target), 10)
	if port.Protocol != "" && port.Protocol != "tcp" {
		spec += "/" + port.Protocol
	}
	host := port.Published
	if first, last, ok := strings.Cut(host, "-"); ok {
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from > to {
			return "", fmt.Errorf("ports: published: found %q, want a port or a range of ports", host)
		}
		if n > to-from+1 {
			return "", fmt.Errorf("ports: published: found %d ports in %q, want one for each of at least %d containers", to-from+1, host, n)
		}
		host = strconv.Itoa(from + n - 1)
	}
	if host != "" {
		spec = host + ":" + spec
	}
	if port.HostIP != "" {
		ip := port.HostIP
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		if host == "" {
			ip += ":"
		}
		spec = ip + ":" + spec
	}
	return spec, nil
}

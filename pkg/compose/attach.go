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
	c.join = []string{"--hostname", c.hostname(s)}
	if s.Uts == "host" {
		c.join = []string{}
	}
	switch s.NetworkMode {
	case "":
	case "host", "none":
		if len(s.Ports) > 0 && s.NetworkMode == "none" {
			return fmt.Errorf("ports: cannot be published with network_mode none")
		}
		c.networks = []string{s.NetworkMode}
		c.setNames(s)
		return nil
	default:
		return fmt.Errorf("network_mode: %q is not supported yet; want host or none", s.NetworkMode)
	}
	keys := make([]string, 0, len(s.Networks))
	for k := range s.Networks {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := priority(s.Networks[keys[i]]), priority(s.Networks[keys[j]])
		return a > b || a == b && keys[i] < keys[j]
	})
	names := []string{c.ID}
	if !c.OneOff {
		names = []string{c.Service, c.ID}
	}
	c.join = append(c.join, flags("--alias", names)...)
	for i, k := range keys {
		n, ok := p.Networks[k]
		if !ok {
			return fmt.Errorf("networks: %s: no network of this name at the top level", k)
		}
		at := s.Networks[k]
		if at == nil {
			at = &types.ServiceNetworkConfig{}
		}
		var opts []string
		for _, a := range sorted(at.Aliases) {
			if !c.OneOff {
				opts = append(opts, "alias="+a)
			}
		}
		for _, ip := range []string{at.Ipv4Address, at.Ipv6Address} {
			if ip != "" && !c.OneOff {
				opts = append(opts, "ip="+ip)
			}
		}
		if at.InterfaceName != "" {
			opts = append(opts, "interface="+at.InterfaceName)
		}
		mac := at.MacAddress
		if mac == "" && i == 0 {
			mac = s.MacAddress
		}
		if mac != "" {
			opts = append(opts, "mac="+mac)
		}
		name := n.Name
		for _, o := range opts {
			if strings.Contains(o, ",") {
				return fmt.Errorf("networks.%s: found %q, want no comma in it", k, o)
			}
		}
		if len(opts) > 0 {
			name += ":" + strings.Join(opts, ",")
		}
		c.networks = append(c.networks, name)
	}
	c.setNames(s)
	for _, port := range s.Ports {
		spec, err := publishSpec(port, c.Number)
		if err != nil {
			return err
		}
		c.Publish = append(c.Publish, spec)
	}
	c.join = append(c.join, flags("--publish", c.Publish)...)
	return nil
}

// setNames adds what becomes /etc/hosts and /etc/resolv.conf.
func (c *Container) setNames(s types.ServiceConfig) {
	var hosts []string
	for host, addrs := range s.ExtraHosts {
		for _, a := range addrs {
			hosts = append(hosts, host+":"+a)
		}
	}
	c.join = append(c.join, flags("--add-host", sorted(hosts))...)
	c.join = append(c.join, flags("--dns", s.DNS)...)
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

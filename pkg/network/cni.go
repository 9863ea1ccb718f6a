// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	cnitypes "github.com/containernetworking/cni/pkg/types"
	types "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// patience bounds one list of plugins: one that hangs is killed and its attachment undone.
const patience = 2 * time.Minute

// pluginDirs is where plugins are looked for, in order: $CNI_PATH alone if it is set.
func pluginDirs() []string {
	if p := os.Getenv("CNI_PATH"); p != "" {
		return filepath.SplitList(p)
	}
	return toolkit.Libexec("cni", "/opt/cni/bin", "/usr/lib/cni")
}

// findPlugins looks for all plugins before the first one runs.
func (n *Network) findPlugins() error {
	for _, t := range append(slices.Clone(n.Plugins), n.ipam...) {
		if n.own && t == "portmap" {
			continue // see effective
		}
		if _, err := invoke.FindInPath(t, pluginDirs()); err != nil {
			return fault.Hint(fmt.Errorf("network %s: CNI plugin %s in %v: %w", n.Name, t, pluginDirs(), fs.ErrNotExist),
				"make builds the plugins; or set CNI_PATH to where they are")
		}
	}
	return nil
}

func (s *Store) cni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(pluginDirs(), place.CNICache(s.run), &runner{})
}

func (s *Store) leases(network string) string { return filepath.Join(place.Leases(s.run), network) }

// effective is the network's document as plugins get it. Leases go below the run directory, where a reboot
// takes them. Only the first way out has the default route. And for networks of our own, masquerading and
// ports are in our table.
func (s *Store) effective(n *Network, defaultRoute bool) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(n.raw))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	plugins, _ := doc["plugins"].([]any)
	plugins = slices.DeleteFunc(plugins, func(p any) bool {
		m, _ := p.(map[string]any)
		return n.own && m["type"] == "portmap"
	})
	for _, p := range plugins {
		m, _ := p.(map[string]any)
		if n.own && m["type"] == "bridge" {
			delete(m, "ipMasq")
			delete(m, "ipMasqBackend")
		}
		if !defaultRoute {
			delete(m, "isDefaultGateway")
		}
		ipam, _ := m["ipam"].(map[string]any)
		if ipam == nil {
			continue
		}
		if _, given := ipam["dataDir"]; ipam["type"] == "host-local" && !given {
			ipam["dataDir"] = place.Leases(s.run)
		}
		if routes, ok := ipam["routes"].([]any); ok && !defaultRoute {
			ipam["routes"] = slices.DeleteFunc(routes, func(r any) bool {
				m, _ := r.(map[string]any)
				return m["dst"] == "0.0.0.0/0" || m["dst"] == "::/0"
			})
		}
	}
	doc["plugins"] = plugins
	return json.Marshal(doc)
}

// runtimeConf is what the plugins are told of an attachment.
func (e *entry) runtimeConf(a *Attachment, netns string) *libcni.RuntimeConf {
	caps := map[string]any{}
	if len(a.IPs) > 0 {
		caps["ips"] = a.IPs
	}
	if a.MAC != "" {
		caps["mac"] = a.MAC
	}
	if len(a.Aliases) > 0 {
		caps["aliases"] = map[string][]string{a.Network: a.Aliases}
	}
	if a.DefaultRoute && len(e.Ports) > 0 {
		var ports []map[string]any
		for _, p := range e.Ports {
			ports = append(ports, map[string]any{
				"hostIP": p.HostAddress, "hostPort": p.HostPort, "containerPort": p.ContainerPort, "protocol": p.Protocol,
			})
		}
		caps["portMappings"] = ports
	}
	return &libcni.RuntimeConf{ContainerID: e.ID, NetNS: netns, IfName: a.Interface, CapabilityArgs: caps}
}

// add runs ADD.
func (s *Store) add(ctx context.Context, e *entry, a *Attachment) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := libcni.NetworkConfFromBytes(a.Conflist)
	if err != nil {
		return err
	}
	r, err := s.cni().AddNetworkList(ctx, list, e.runtimeConf(a, e.Netns))
	if err != nil {
		return fmt.Errorf("join network %s: %w", a.Network, explain(err))
	}
	if a.Result, err = types.NewResultFromResult(r); err != nil {
		return fmt.Errorf("join network %s: result: %w", a.Network, err)
	}
	return nil
}

// del runs DEL and removes what a plugin cannot when the namespace is gone.
func (s *Store) del(ctx context.Context, e *entry, a *Attachment) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if len(a.Conflist) == 0 {
		return nil // nothing was begun
	}
	list, err := libcni.NetworkConfFromBytes(a.Conflist)
	if err != nil {
		return err
	}
	if !netnsAlive(e.Netns) {
		// Without a namespace the bridge plugin leaves its masquerading rules: it gets an empty one.
		e.Netns = s.netns(e.ID)
		if err := dropNetns(e.Netns); err != nil {
			return err
		}
		if err := makeNetns(e.Netns); err != nil {
			return err
		}
	}
	if err := s.cni().DelNetworkList(ctx, list, e.runtimeConf(a, e.Netns)); err != nil {
		return fmt.Errorf("leave network %s: %w", a.Network, explain(err))
	}
	if a.Result == nil {
		return nil
	}
	// A process may still live in the namespace and keep its interfaces.
	for _, i := range a.Result.Interfaces {
		if i.Sandbox != "" {
			continue
		}
		if l, err := netlink.LinkByName(i.Name); err == nil && l.Type() == "veth" && l.Attrs().HardwareAddr.String() == i.Mac {
			if err := netlink.LinkDel(l); err != nil {
				return fmt.Errorf("remove interface %s: %w", i.Name, err)
			}
		}
	}
	return nil
}

// explain gives libcni's errors our kinds and hints.
func explain(err error) error {
	var e *cnitypes.Error
	switch {
	case errors.As(err, &e) && e.Code == cnitypes.ErrTryAgainLater:
		return fault.As(fault.ErrTryAgain, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("a plugin took more than %v: %w", patience, err)
	}
	return err
}

func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return buf.Bytes(), err
}

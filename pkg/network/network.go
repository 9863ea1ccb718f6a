// SPDX-License-Identifier: Apache-2.0

// Package network owns the network contract (spec/network.md, ctr-network(5)): CNI networks as files below
// CTR_ROOT/networks, the attachments of a bundle in its network.json, network namespace handles below
// CTR_RUN/netns, the names in hosts files, and one nftables table for each network.
//
//	s := network.NewStore(place.Root(), place.Run())
//	s.Create(ctx, "front", network.CreateOptions{})
//	s.Attach(ctx, b, []network.Join{{Network: "front"}}, network.AttachOptions{})
//	s.Detach(ctx, b)
//
// Interfaces and addresses are made by CNI plugins (CNI specification 1.1) through libcni. Rules of the
// packet filter for networks that Create made are our own: the text of a network's table is a function of
// its file and its members ([Network.Rules]) and replaces the former one in one transaction. Networks
// whose files others wrote are handed to their plugins as they are.
//
// The package knows no images and starts no containers.
package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
)

const suffix = ".conflist"

// maxConflistBytes bounds a network's file.
const maxConflistBytes = 1 << 20

// A Store is the networks below one root, and what one run directory knows of their members.
type Store struct{ root, run string }

// NewStore makes nothing on disk.
func NewStore(root, run string) *Store {
	return &Store{root: absolute(root), run: absolute(run)}
}

func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// A Network is one conflist.
type Network struct {
	Name     string            `json:"name"`
	Plugins  []string          `json:"plugins"` // types, in order
	Bridge   string            `json:"bridge,omitempty"`
	Subnets  []netip.Prefix    `json:"subnets,omitempty"`
	Gateways []netip.Addr      `json:"gateways,omitempty"`
	Internal bool              `json:"internal,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Created  *time.Time        `json:"created,omitempty"`
	MTU      int               `json:"mtu,omitempty"`

	ipam []string // types

	own  bool // made by Create: filter rules are ours
	path string
	raw  []byte
}

// Conflist is the network's document.
func (n *Network) Conflist() json.RawMessage { return n.raw }

// IPv6 says whether the network has IPv6 addresses.
func (n *Network) IPv6() bool { return n.has(netip.Addr.Is6) }

// IPv4 says whether the network has IPv4 addresses.
func (n *Network) IPv4() bool { return n.has(netip.Addr.Is4) }

func (n *Network) has(family func(netip.Addr) bool) bool {
	for _, p := range n.Subnets {
		if family(p.Addr()) {
			return true
		}
	}
	return false
}

// extension is our part of a conflist, under the key "dev.ctr". Other CNI runtimes ignore it.
type extension struct {
	Internal bool              `json:"internal,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Created  *time.Time        `json:"created,omitempty"`
}

type conflist struct {
	CNIVersion  string     `json:"cniVersion"`
	CNIVersions []string   `json:"cniVersions,omitempty"`
	Name        string     `json:"name"`
	Extension   *extension `json:"dev.ctr,omitempty"`
	Plugins     []plugin   `json:"plugins"`
}

type plugin struct {
	Type         string          `json:"type"`
	Bridge       string          `json:"bridge,omitempty"`
	IsGateway    bool            `json:"isGateway,omitempty"`
	IPMasq       bool            `json:"ipMasq,omitempty"`
	MasqBackend  string          `json:"ipMasqBackend,omitempty"`
	HairpinMode  bool            `json:"hairpinMode,omitempty"`
	MTU          int             `json:"mtu,omitempty"`
	Backend      string          `json:"backend,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	IPAM         *ipam           `json:"ipam,omitempty"`
}

type ipam struct {
	Type   string      `json:"type"`
	Ranges [][]ipRange `json:"ranges,omitempty"`
	Subnet string      `json:"subnet,omitempty"` // the short form of one range
	Routes []ipamRoute `json:"routes,omitempty"`
}

type ipamRoute struct {
	Dst string `json:"dst"`
	GW  string `json:"gw,omitempty"`
}

type ipRange struct {
	Subnet     string `json:"subnet"`
	Gateway    string `json:"gateway,omitempty"`
	RangeStart string `json:"rangeStart,omitempty"`
	RangeEnd   string `json:"rangeEnd,omitempty"`
}

// Parse reads a conflist. The error says what is wrong with it and where.
func Parse(data []byte) (*Network, error) {
	var c conflist
	if err := json.Unmarshal(data, &c); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return nil, fmt.Errorf("%s: found a %s, want a %s", typ.Field, typ.Value, typ.Type.Kind())
		}
		return nil, fmt.Errorf("line %d: %w", lineOf(data, err), err)
	}
	if !nameRE.MatchString(c.Name) || len(c.Name) > maxNameBytes {
		return nil, fmt.Errorf("name: found %q, want a network name", c.Name)
	}
	if c.CNIVersion == "" {
		return nil, errors.New("cniVersion: found none")
	}
	if len(c.Plugins) == 0 {
		return nil, errors.New("plugins: found none, want at least one")
	}
	n := &Network{Name: c.Name, raw: data}
	for i, p := range c.Plugins {
		// CVE-2021-20206: a type with a path in it ran any binary.
		for _, t := range []struct{ at, name string }{{"type", p.Type}, {"ipam.type", p.ipamType()}} {
			if t.name != "" && (strings.ContainsAny(t.name, "/\\") || strings.HasPrefix(t.name, ".")) || t.name == "" && t.at == "type" {
				return nil, fmt.Errorf("plugins[%d].%s: found %q, want a bare file name", i, t.at, t.name)
			}
		}
		n.Plugins = append(n.Plugins, p.Type)
		if p.ipamType() != "" {
			n.ipam = append(n.ipam, p.ipamType())
		}
		if p.Type == "bridge" && n.Bridge == "" {
			if n.Bridge, n.MTU = p.Bridge, p.MTU; n.Bridge == "" {
				n.Bridge = "cni0" // the plugin's default
			}
			if err := checkInterface(n.Bridge); err != nil {
				return nil, fmt.Errorf("plugins[%d].bridge: %w", i, err)
			}
		}
		if err := n.addRanges(i, p.IPAM); err != nil {
			return nil, err
		}
	}
	if x := c.Extension; x != nil {
		n.own, n.Internal, n.Labels, n.Created = n.Bridge != "", x.Internal, x.Labels, x.Created
	}
	return n, nil
}

func (p plugin) ipamType() string {
	if p.IPAM == nil {
		return ""
	}
	return p.IPAM.Type
}

func (n *Network) addRanges(i int, a *ipam) error {
	if a == nil {
		return nil
	}
	ranges := a.Ranges
	if a.Subnet != "" {
		ranges = append(ranges, []ipRange{{Subnet: a.Subnet}})
	}
	for j, set := range ranges {
		for k, r := range set {
			at := fmt.Sprintf("plugins[%d].ipam.ranges[%d][%d]", i, j, k)
			p, err := netip.ParsePrefix(r.Subnet)
			if err != nil {
				return fmt.Errorf("%s.subnet: found %q, want an address prefix", at, r.Subnet)
			}
			n.Subnets = append(n.Subnets, p.Masked())
			if r.Gateway == "" {
				continue
			}
			g, err := netip.ParseAddr(r.Gateway)
			if err != nil || !p.Contains(g) {
				return fmt.Errorf("%s.gateway: found %q, want an address in %s", at, r.Gateway, p)
			}
			n.Gateways = append(n.Gateways, g)
		}
	}
	return nil
}

func lineOf(data []byte, err error) int {
	var syn *json.SyntaxError
	if errors.As(err, &syn) {
		return 1 + bytes.Count(data[:min(int(syn.Offset), len(data))], []byte("\n"))
	}
	return 1
}

func (s *Store) path(name string) string {
	return filepath.Join(place.Networks(s.root), name+suffix)
}

// Load reads one network. It fails with fs.ErrNotExist and a hint.
func (s *Store) Load(name string) (*Network, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	path := s.path(name)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fmt.Errorf("network %s: %w", name, fs.ErrNotExist), "make it: ctr-net create %s", name)
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxConflistBytes {
		return nil, fmt.Errorf("%s: %v of %d bytes, want a regular file of at most %d", path, st.Mode().Type(), st.Size(), maxConflistBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if n.Name != name {
		return nil, fmt.Errorf("%s: name: found %q, want %q as the file is called", path, n.Name, name)
	}
	n.path = path
	return n, nil
}

// List reads all networks, by name. A file that cannot be read is reported in err next to those that can.
func (s *Store) List() (all []*Network, err error) {
	entries, err := os.ReadDir(place.Networks(s.root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !nameRE.MatchString(name) {
			continue
		}
		n, err := s.Load(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, n)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, errors.Join(errs...)
}

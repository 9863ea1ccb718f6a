// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
)

// CreateOptions describes a bridge network.
type CreateOptions struct {
	Subnets  []netip.Prefix // none: a free /24 below 10.0.0.0/8
	Gateways []netip.Addr   // for the subnets that hold them; none: the first address
	Ranges   []netip.Prefix // addresses given out, each inside a subnet; none: all
	IPv6     bool           // with a /64 of unique local addresses (RFC 4193) if no subnet is IPv6
	Internal bool           // no way out, no published ports
	MTU      int            // bytes; 0: that of the default route's interface if below 1500
	Labels   map[string]string
}

// Create makes a network's file and touches nothing else. A network that is there already and agrees with
// the options is returned; one that does not is fs.ErrExist.
func (s *Store) Create(ctx context.Context, name string, o CreateOptions) (*Network, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	dir := place.Networks(s.root)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := atomicfile.LockPath(dir, true)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()

	n, err := s.Load(name)
	if err == nil {
		return n, o.agree(n)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	taken, links, err := used(all)
	if err != nil {
		return nil, err
	}
	if len(o.Subnets) == 0 {
		p, err := freeSubnet(s.root+"\x00"+name, taken)
		if err != nil {
			return nil, err
		}
		o.Subnets = []netip.Prefix{p}
	}
	if o.IPv6 && !slices.ContainsFunc(o.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		o.Subnets = append(o.Subnets, uniqueLocal(s.root+"\x00"+name))
	}
	for _, p := range o.Subnets {
		if err := free(p, taken, name); err != nil {
			return nil, err
		}
	}
	bridge := ""
	for salt := byte(0); bridge == "" || links[bridge]; salt++ {
		bridge = bridgeName(s.root, name, salt)
	}
	if o.MTU == 0 {
		o.MTU = uplinkMTU()
	}
	data, err := marshal(o.conflist(name, bridge))
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(s.path(name), data, 0o644); err != nil {
		return nil, err
	}
	return s.Load(name)
}

func (o CreateOptions) check() error {
	for _, p := range o.Subnets {
		if p.Masked() != p {
			return fault.Usagef("--subnet %s: has host bits, want %s", p, p.Masked())
		}
		if p.Addr().Is4() && p.Bits() > 30 || p.Bits() > 126 {
			return fault.Usagef("--subnet %s: too small for a gateway and a member", p)
		}
	}
	in := func(a netip.Addr) bool {
		return slices.ContainsFunc(o.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for _, g := range o.Gateways {
		if !in(g) {
			return fault.Usagef("--gateway %s: is in no --subnet", g)
		}
	}
	for _, r := range o.Ranges {
		if !in(r.Addr()) {
			return fault.Usagef("--ip-range %s: is in no --subnet", r)
		}
	}
	if o.MTU != 0 && (o.MTU < 68 || o.MTU > 65535) {
		return fault.Usagef("--mtu %d: want 68 to 65535 bytes", o.MTU)
	}
	return nil
}

// agree says whether what the options ask for is what the network has.
func (o CreateOptions) agree(n *Network) error {
	differ := func(what string, has, want any) error {
		return fault.Hint(fmt.Errorf("network %s: %s is %v, not %v: %w", n.Name, what, has, want, fs.ErrExist),
			"remove it first: ctr-net rm %s", n.Name)
	}
	for _, p := range o.Subnets {
		if !slices.Contains(n.Subnets, p) {
			return differ("subnet", n.Subnets, p)
		}
	}
	for _, g := range o.Gateways {
		if !slices.Contains(n.Gateways, g) {
			return differ("gateway", n.Gateways, g)
		}
	}
	if o.IPv6 && !n.IPv6() {
		return differ("IPv6", false, true)
	}
	if o.Internal != n.Internal {
		return differ("internal", n.Internal, o.Internal)
	}
	if o.MTU != 0 && o.MTU != n.MTU {
		return differ("MTU", n.MTU, o.MTU)
	}
	if len(o.Labels) > 0 && !maps.Equal(o.Labels, n.Labels) {
		return differ("labels", n.Labels, o.Labels)
	}
	return nil
}

// conflist is a document that any CNI runtime can use: older ones read cniVersion, newer ones the best of
// cniVersions. Where attach departs from it, spec/network.md says so.
func (o CreateOptions) conflist(name, bridge string) conflist {
	now := time.Now().UTC().Truncate(time.Second)
	a := &ipam{Type: "host-local"}
	for _, p := range o.Subnets {
		r := ipRange{Subnet: p.String(), Gateway: p.Addr().Next().String()}
		for _, g := range o.Gateways {
			if p.Contains(g) {
				r.Gateway = g.String()
			}
		}
		for _, part := range o.Ranges {
			if p.Contains(part.Addr()) {
				r.RangeStart, r.RangeEnd = part.Masked().Addr().String(), last(part).String()
			}
		}
		a.Ranges = append(a.Ranges, []ipRange{r})
		if !o.Internal {
			dst := "0.0.0.0/0"
			if p.Addr().Is6() {
				dst = "::/0"
			}
			if !slices.ContainsFunc(a.Routes, func(r ipamRoute) bool { return r.Dst == dst }) {
				a.Routes = append(a.Routes, ipamRoute{Dst: dst})
			}
		}
	}
	c := conflist{
		CNIVersion:  "1.0.0",
		CNIVersions: []string{"1.0.0", "1.1.0"},
		Name:        name,
		Extension:   &extension{Internal: o.Internal, Labels: o.Labels, Created: &now},
		Plugins: []plugin{{
			Type: "bridge", Bridge: bridge, IsGateway: true, IPMasq: !o.Internal, HairpinMode: true, MTU: o.MTU,
			Capabilities: map[string]bool{"ips": true, "mac": true}, IPAM: a,
		}},
	}
	if !o.Internal {
		c.Plugins[0].MasqBackend = "nftables"
		c.Plugins = append(c.Plugins, plugin{
			Type: "portmap", Backend: "nftables", Capabilities: map[string]bool{"portMappings": true},
		})
	}
	return c
}

// last is the last address of a prefix that is given out: for IPv4 the one before the broadcast address.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// A use is a prefix that is taken, and by what.
type use struct {
	prefix netip.Prefix
	by     string
}

// used lists what the networks and the routes of this host take, and the names of its interfaces.
func used(all []*Network) (taken []use, links map[string]bool, err error) {
	links = map[string]bool{}
	for _, n := range all {
		links[n.Bridge] = true
		for _, p := range n.Subnets {
			taken = append(taken, use{p, "network " + n.Name})
		}
	}
	list, err := netlinksafe.LinkList()
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	byIndex := map[int]string{}
	for _, l := range list {
		links[l.Attrs().Name] = true
		byIndex[l.Attrs().Index] = l.Attrs().Name
	}
	// Every table: a policy route matters as much as one of the main table.
	routes, err := netlinksafe.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if a = a.Unmap(); !ok || bits == 0 || a.IsMulticast() || a.IsLoopback() {
			continue
		}
		taken = append(taken, use{netip.PrefixFrom(a, bits), "a route on " + byIndex[r.LinkIndex]})
	}
	return taken, links, nil
}

func free(p netip.Prefix, taken []use, name string) error {
	for _, u := range taken {
		if u.prefix.Overlaps(p) {
			return fault.Hint(fmt.Errorf("network %s: subnet %s overlaps %s of %s: %w", name, p, u.prefix, u.by, fs.ErrExist),
				"leave --subnet out: a free one is chosen")
		}
	}
	return nil
}

// freeSubnet looks for a free /24 in 10.0.0.0/8, from a place that depends on seed: two roots that choose at
// the same time hardly meet. 10.0 to 10.63, where routers and clouds like to be, come last.
func freeSubnet(seed string, taken []use) (netip.Prefix, error) {
	sum := sha256.Sum256([]byte(seed))
	const all, preferred = 1 << 16, 3 << 14
	start := int(binary.BigEndian.Uint32(sum[:])) % preferred
	try := func(i int) (netip.Prefix, bool) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		return p, !slices.ContainsFunc(taken, func(u use) bool { return u.prefix.Overlaps(p) })
	}
	for i := range preferred {
		if p, ok := try(all - preferred + (start+i)%preferred); ok {
			return p, nil
		}
	}
	for i := range all - preferred {
		if p, ok := try(i); ok {
			return p, nil
		}
	}
	return netip.Prefix{}, fault.Hint(errors.New("no free /24 is left in 10.0.0.0/8"), "choose one: ctr-net create --subnet CIDR NAME")
}

// uniqueLocal is a /64 of RFC 4193 that depends on seed.
func uniqueLocal(seed string) netip.Prefix {
	sum := sha256.Sum256([]byte(seed))
	var a [16]byte
	copy(a[:8], sum[:8])
	a[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// uplinkMTU is the default route's MTU where it is below Ethernet's, else 0.
func uplinkMTU() int {
	routes, err := netlinksafe.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		return 0
	}
	for _, r := range routes {
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU < 1500 {
			return l.Attrs().MTU
		}
	}
	return 0
}

// Remove removes a network: its file, bridge, table and leases. One that is not there is fs.ErrNotExist; one
// that has members is fault.ErrBusy and names them.
func (s *Store) Remove(ctx context.Context, name string) error {
	n, err := s.Load(name)
	if err != nil {
		return err
	}
	if _, err := s.reap(ctx, func(e *entry) bool { return e.attachment(name) != nil }); err != nil {
		return err
	}
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Unlock()
	members, err := s.members(name)
	if err != nil {
		return err
	}
	var users []string
	for _, e := range members {
		users = append(users, e.Bundle)
	}
	if len(users) > 0 {
		return fault.Hint(fmt.Errorf("network %s: %w by %s", name, fault.ErrBusy, strings.Join(users, ", ")), "ctr-net detach %s", users[0])
	}
	if n.own {
		if err := dropTable(ctx, n.Bridge); err != nil {
			return err
		}
		if l, err := netlink.LinkByName(n.Bridge); err == nil && l.Type() == "bridge" {
			if err := netlink.LinkDel(l); err != nil {
				return fmt.Errorf("remove bridge %s: %w", n.Bridge, err)
			}
		}
	}
	if err := os.RemoveAll(s.leases(name)); err != nil {
		return err
	}
	return os.Remove(n.path)
}

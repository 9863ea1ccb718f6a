// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// A Join names a network and how to be on it.
type Join struct {
	Network   string
	Aliases   []string // further names on this network
	IPs       []string // wanted addresses; none: any free
	MAC       string   // wanted hardware address; empty: the kernel's choice
	Interface string   // empty: eth0, eth1, …
}

// AttachOptions are what does not belong to one network.
type AttachOptions struct {
	Publish    []Publish
	Hostname   string   // empty: config.json's, else the bundle directory's name
	Aliases    []string // on every network
	ExtraHosts []Host
	DNS        []string // resolvers in place of the host's
}

// Attach joins a bundle to networks, or sets it to HostMode or NoneMode. The first network that is not
// internal has the default route and the published ports. On an attached bundle it joins the networks that
// are missing. Either all is done or nothing.
func (s *Store) Attach(ctx context.Context, b *bundle.Bundle, joins []Join, o AttachOptions) (*Record, error) {
	mode, err := checkAttach(joins, o)
	if err != nil {
		return nil, err
	}
	l, err := lockBundle(b)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	return s.attach(ctx, b, mode, joins, o)
}

func checkAttach(joins []Join, o AttachOptions) (mode string, err error) {
	if len(joins) == 0 {
		return "", fault.Usagef("no network is named")
	}
	mode = NetworksMode
	for i, j := range joins {
		if j.Network == HostMode || j.Network == NoneMode {
			if len(joins) > 1 {
				return "", fault.Usagef("network %s: stands alone", j.Network)
			}
			if len(o.Publish) > 0 {
				return "", fault.Usagef("network %s: has no ports to publish", j.Network)
			}
			mode = j.Network
			break
		}
		if err := CheckName(j.Network); err != nil {
			return "", err
		}
		if slices.ContainsFunc(joins[:i], func(k Join) bool { return k.Network == j.Network }) {
			return "", fault.Usagef("network %s: given twice", j.Network)
		}
		for _, ip := range j.IPs {
			if _, err := netip.ParseAddr(ip); err != nil {
				return "", fault.Usagef("network %s: ip %q: want an IP address", j.Network, ip)
			}
		}
		if j.MAC != "" {
			if hw, err := net.ParseMAC(j.MAC); err != nil || len(hw) != 6 {
				return "", fault.Usagef("network %s: mac %q: want six octets as in 02:00:00:00:00:01", j.Network, j.MAC)
			}
		}
		if j.Interface != "" {
			if err := checkInterface(j.Interface); err != nil {
				return "", err
			}
		}
		for _, a := range j.Aliases {
			if err := checkHostname("alias", a); err != nil {
				return "", err
			}
		}
	}
	for _, a := range o.Aliases {
		if err := checkHostname("alias", a); err != nil {
			return "", err
		}
	}
	if o.Hostname != "" {
		if err := checkHostname("hostname", o.Hostname); err != nil || len(o.Hostname) > 64 {
			return "", fault.Usagef("hostname %q: want letters, digits and _.-, at most 64", o.Hostname)
		}
	}
	for _, h := range o.ExtraHosts {
		if err := checkHostname("host name", h.Name); err != nil {
			return "", err
		}
		if _, err := netip.ParseAddr(h.Address); err != nil && h.Address != hostGateway {
			return "", fault.Usagef("host %s: address %q: want an IP address or %s", h.Name, h.Address, hostGateway)
		}
	}
	for _, d := range o.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return "", fault.Usagef("resolver %q: want an IP address", d)
		}
	}
	return mode, nil
}

// lockBundle keeps other attaches and detaches off the bundle, and tells gc that somebody is at work. It is
// not the bundle's own lock, which bundle.Update takes.
func lockBundle(b *bundle.Bundle) (*atomicfile.Lock, error) {
	dir := b.Path(bundle.EtcDir)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return atomicfile.LockPath(dir, true)
}

// undo is what to do, last first, if an attach fails.
type undo []func() error

func (u *undo) add(f func() error) { *u = append(*u, f) }

func (u undo) run() (errs []error) {
	for _, f := range slices.Backward(u) {
		if err := f(); err != nil {
			errs = append(errs, fmt.Errorf("undo: %w", err))
		}
	}
	return errs
}

func (s *Store) attach(ctx context.Context, b *bundle.Bundle, mode string, joins []Join, o AttachOptions) (*Record, error) {
	old, err := Read(b)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if old != nil && old.Mode == NetworksMode && !s.alive(old) {
		// After a reboot, or a crash in the middle: begin anew.
		if err := s.detachAll(ctx, b, old); err != nil {
			return nil, err
		}
		old = nil
	}
	if old != nil && old.Mode != mode {
		return nil, fault.Hint(fmt.Errorf("bundle %s: is attached in mode %s: %w", b.Dir(), old.Mode, fs.ErrExist), "ctr-net detach %s", b.Dir())
	}
	hostname, err := hostnameOf(b, o.Hostname)
	if err != nil {
		return nil, err
	}
	if mode != NetworksMode {
		r := &Record{Version: Version, Mode: mode, Hostname: hostname, ExtraHosts: o.ExtraHosts, DNS: o.DNS}
		return r, s.finish(b, &entry{Bundle: b.Dir(), Record: *r}, o.Hostname != "")
	}

	e := &entry{Bundle: b.Dir()}
	if old != nil {
		e.Record = *old
		e.Attachments = slices.Clone(old.Attachments)
		if joins = slices.DeleteFunc(slices.Clone(joins), func(j Join) bool { return old.attachment(j.Network) != nil }); len(joins) == 0 {
			return old, samePorts(b, old, o.Publish)
		}
		if len(old.Ports) > 0 && len(o.Publish) > 0 {
			if err := samePorts(b, old, o.Publish); err != nil {
				return nil, err
			}
			o.Publish = nil
		}
	} else {
		id := newID(s.run, b.Dir())
		e.Record = Record{Version: Version, Mode: mode, ID: id, Netns: s.netns(id), Hostname: hostname, ExtraHosts: o.ExtraHosts, DNS: o.DNS}
	}

	var undo undo
	fail := func(err error) (*Record, error) {
		return nil, errors.Join(append([]error{err}, undo.run()...)...)
	}
	// What has been begun is undone even if the context is over.
	background := context.WithoutCancel(ctx)
	before := *e
	stuck := false // what could not be undone stays known, for gc
	fresh, networks, err := s.begin(ctx, b, e, old, joins, o, &undo, &stuck)
	if errors.Is(err, fault.ErrBusy) { // by the living?
		if dead, _ := s.reap(ctx, func(x *entry) bool { return len(x.Ports) > 0 }); len(dead) > 0 {
			*e = before
			fresh, networks, err = s.begin(ctx, b, e, old, joins, o, &undo, &stuck)
		}
	}
	if err != nil {
		return fail(err)
	}
	if old == nil {
		undo.add(func() error { return dropNetns(e.Netns) })
		if err := makeNetns(e.Netns); err != nil {
			return fail(err)
		}
	}
	for i, a := range fresh {
		n := networks[a.Network]
		if n.own {
			if err := s.ensureBridge(n, len(e.Ports) > 0 && a.DefaultRoute); err != nil {
				return fail(err)
			}
		}
		undo.add(func() error {
			err := s.del(background, e, fresh[i])
			stuck = stuck || err != nil
			return err
		})
		if err := s.add(ctx, e, a); err != nil {
			return fail(err)
		}
		a.State = Joined
	}
	// Rules and names last: nobody is led to what is not there yet.
	undo.add(func() error { return s.withdraw(background, e, fresh) })
	if err := s.finish(b, e, o.Hostname != ""); err != nil {
		return fail(err)
	}
	if err := s.publish(ctx, e, slices.Collect(maps.Values(networks))); err != nil {
		return fail(err)
	}
	return &e.Record, nil
}

func samePorts(b *bundle.Bundle, old *Record, ask []Publish) error {
	for _, q := range ask {
		if !slices.ContainsFunc(old.Ports, func(p Port) bool {
			return p.HostAddress == q.HostAddress && p.ContainerPort == q.ContainerPort && p.Protocol == q.Protocol &&
				(q.First == 0 || q.First <= p.HostPort && p.HostPort <= q.Last)
		}) {
			return fault.Hint(fmt.Errorf("bundle %s: is attached with ports %v: %w", b.Dir(), old.Ports, fs.ErrExist), "ctr-net detach %s", b.Dir())
		}
	}
	return nil
}

// begin plans the new attachments and ports and makes them known, under the lock: from here on gc can undo
// them, the networks cannot be removed, and nobody else gets the ports.
func (s *Store) begin(ctx context.Context, b *bundle.Bundle, e *entry, old *Record, joins []Join, o AttachOptions, undo *undo, stuck *bool) ([]*Attachment, map[string]*Network, error) {
	l, err := s.lock()
	if err != nil {
		return nil, nil, err
	}
	defer l.Unlock()
	networks := map[string]*Network{}
	haveDefault := slices.ContainsFunc(e.Attachments, func(a *Attachment) bool { return a.DefaultRoute })
	var fresh []*Attachment
	for _, j := range joins {
		n, err := s.Load(j.Network)
		if err != nil {
			return nil, nil, err
		}
		networks[n.Name] = n
		if err := n.findPlugins(); err != nil {
			return nil, nil, err
		}
		for _, ip := range j.IPs {
			if a := netip.MustParseAddr(ip); len(n.Subnets) > 0 && !slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return nil, nil, fault.Usagef("network %s: ip %s is not in %v", n.Name, ip, n.Subnets)
			}
		}
		a := &Attachment{Network: n.Name, Interface: j.Interface, State: Joining, IPs: j.IPs, MAC: j.MAC}
		a.Aliases = append(slices.Clone(o.Aliases), j.Aliases...)
		if !n.Internal && !haveDefault {
			a.DefaultRoute, haveDefault = true, true
		}
		if a.Conflist, err = s.effective(n, a.DefaultRoute); err != nil {
			return nil, nil, err
		}
		e.Attachments = append(e.Attachments, a)
		fresh = append(fresh, a)
	}
	if err := nameInterfaces(e.Attachments); err != nil {
		return nil, nil, err
	}
	if len(o.Publish) > 0 {
		if err := s.choosePorts(ctx, e, networks, o.Publish); err != nil {
			return nil, nil, err
		}
	}
	undo.add(func() error {
		if old != nil {
			return b.WriteJSON(bundle.NetworkFile, old)
		}
		return b.Remove(bundle.NetworkFile)
	})
	if err := b.WriteJSON(bundle.NetworkFile, e.Record); err != nil {
		return nil, nil, err
	}
	undo.add(func() error {
		switch {
		case *stuck:
			return nil
		case old != nil:
			return s.put(&entry{Bundle: b.Dir(), Record: *old})
		}
		return os.Remove(s.entryPath(e.ID))
	})
	return fresh, networks, s.put(e)
}

func nameInterfaces(all []*Attachment) error {
	used := map[string]bool{}
	for _, a := range all {
		if used[a.Interface] && a.Interface != "" {
			return fault.Usagef("network %s: interface name %s is given twice", a.Network, a.Interface)
		}
		used[a.Interface] = true
	}
	for _, a := range all {
		for i := 0; a.Interface == ""; i++ {
			if name := "eth" + strconv.Itoa(i); !used[name] {
				a.Interface, used[name] = name, true
			}
		}
	}
	return nil
}

func (s *Store) choosePorts(ctx context.Context, e *entry, networks map[string]*Network, ask []Publish) error {
	i := slices.IndexFunc(e.Attachments, func(a *Attachment) bool { return a.DefaultRoute })
	if i < 0 {
		return fault.Usagef("publish %d: all networks of bundle %s are internal", ask[0].ContainerPort, e.Bundle)
	}
	a := e.Attachments[i]
	if n := networks[a.Network]; n != nil && n.own {
		for _, q := range ask {
			if addr, err := netip.ParseAddr(q.HostAddress); err == nil && (addr.Is6() && !n.IPv6() || addr.Is4() && !n.IPv4()) {
				return fault.Hint(fault.Usagef("publish %s: network %s has no addresses of that family", q.HostAddress, n.Name),
					"ctr-net create --ipv6 NAME")
			}
		}
	}
	all, err := s.entries()
	if err != nil {
		return err
	}
	var taken []occupant
	ids := map[string]bool{}
	for _, x := range all {
		ids[x.ID] = true
		for _, p := range x.Ports {
			if x.ID != e.ID {
				taken = append(taken, occupant{p, "bundle " + x.Bundle, "ctr-net detach " + x.Bundle})
			}
		}
	}
	bridges := map[string]bool{}
	if nets, err := s.List(); err == nil {
		for _, n := range nets {
			bridges[n.Bridge] = n.own
		}
	}
	taken = append(taken, foreignPorts(ctx, func(table string) bool { return bridges[table] })...)
	ports, err := choose(ctx, ask, taken)
	if err != nil {
		return err
	}
	e.Ports = append(e.Ports, ports...)
	return nil
}

// ensureBridge makes a network's bridge before the plugin would: without IPv6 from the first moment on a
// network without IPv6.
func (s *Store) ensureBridge(n *Network, publishes bool) error {
	if _, err := netlink.LinkByName(n.Bridge); err != nil {
		taken, _, err := used(nil)
		if err != nil {
			return err
		}
		for _, p := range n.Subnets {
			if err := free(p, taken, n.Name); err != nil {
				return err
			}
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = n.Bridge, n.MTU
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("network %s: make bridge %s: %w", n.Name, n.Bridge, err)
		}
	}
	// The address of the bridge is nobody else's, and is wanted at once: no duplicate address detection.
	conf := "net/ipv6/conf/" + n.Bridge + "/"
	for _, name := range []string{"accept_ra", "accept_dad"} {
		if err := sysctl(conf+name, "0"); err != nil {
			return err
		}
	}
	if !n.IPv6() {
		if err := sysctl(conf+"disable_ipv6", "1"); err != nil {
			return err
		}
	}
	if publishes && n.IPv4() { // the table's guard chain is what keeps this safe
		return sysctl("net/ipv4/conf/"+n.Bridge+"/route_localnet", "1")
	}
	return nil
}

// publish makes an entry's attachments known: tables, hosts files.
func (s *Store) publish(ctx context.Context, e *entry, networks []*Network) error {
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Unlock()
	if err := s.put(e); err != nil {
		return err
	}
	return s.sync(ctx, networks)
}

// sync makes tables and hosts files agree with the entries. The caller holds the lock.
func (s *Store) sync(ctx context.Context, networks []*Network) error {
	all, err := s.entries()
	if err != nil {
		return err
	}
	var names []string
	for _, n := range networks {
		names = append(names, n.Name)
		if !n.own {
			continue
		}
		members := slices.DeleteFunc(slices.Clone(all), func(e *entry) bool { return e.attachment(n.Name) == nil })
		if err := setTable(ctx, n.Bridge, n.rules(members)); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
		for _, e := range members {
			if e.attachment(n.Name).DefaultRoute {
				forget(e.Ports)
			}
		}
	}
	return s.refreshHosts(all, names)
}

// forget drops the kernel's memory of UDP flows to the ports: they would keep going where they went before.
func forget(ports []Port) {
	for _, p := range ports {
		if p.Protocol != "udp" {
			continue
		}
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			f := &netlink.ConntrackFilter{}
			f.AddProtocol(unix.IPPROTO_UDP)
			f.AddPort(netlink.ConntrackOrigDstPort, p.HostPort)
			netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f)
		}
	}
}

// etcMounts are the mounts of a bundle's etc files; the sources are relative to the bundle.
func etcMounts() (mounts []specs.Mount) {
	for _, f := range []string{hostsFile, resolvFile, hostnameFile} {
		mounts = append(mounts, specs.Mount{
			Destination: "/etc/" + f, Type: "bind", Source: bundle.EtcDir + "/" + f, Options: []string{"bind", "rprivate"},
		})
	}
	return mounts
}

// finish writes the bundle's part: network.json, etc files, config.json.
func (s *Store) finish(b *bundle.Bundle, e *entry, setHostname bool) error {
	if err := e.writeEtc(b); err != nil {
		return err
	}
	if err := writeHosts(b.Path(bundle.EtcDir+"/"+hostsFile), e.hosts(nil), true); err != nil {
		return err
	}
	err := b.Update(func(spec *specs.Spec) error {
		if spec.Linux == nil {
			spec.Linux = &specs.Linux{}
		}
		setNetns(spec.Linux, e.Mode, e.Netns)
		uts := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace })
		if uts && (setHostname || spec.Hostname == "" && e.Mode != HostMode) {
			spec.Hostname = e.Hostname
		}
		for _, m := range etcMounts() {
			if !slices.ContainsFunc(spec.Mounts, func(have specs.Mount) bool { return have.Destination == m.Destination }) {
				spec.Mounts = append(spec.Mounts, m)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.WriteJSON(bundle.NetworkFile, e.Record)
}

func setNetns(l *specs.Linux, mode, path string) {
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	if mode != HostMode {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: path})
	}
}

// hostnameOf is the name of the bundle for itself and others.
func hostnameOf(b *bundle.Bundle, asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	spec, err := b.Config()
	if err != nil {
		return "", err
	}
	if hostRE.MatchString(spec.Hostname) && len(spec.Hostname) <= 64 {
		return spec.Hostname, nil
	}
	return label(b.Dir()), nil
}

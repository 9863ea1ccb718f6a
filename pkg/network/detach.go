// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
)

// Detach takes a bundle off the named networks, or off all and undoes what Attach did to it. What is not
// attached is success.
func (s *Store) Detach(ctx context.Context, b *bundle.Bundle, networks ...string) error {
	l, err := lockBundle(b)
	if err != nil {
		return err
	}
	defer l.Unlock()
	r, err := Read(b)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var which []*Attachment
	for _, a := range r.Attachments {
		if slices.Contains(networks, a.Network) {
			which = append(which, a)
		}
	}
	if len(networks) == 0 || len(which) > 0 && len(which) == len(r.Attachments) {
		return s.detachAll(ctx, b, r)
	}
	if len(which) == 0 {
		return nil
	}
	for _, a := range which {
		if a.DefaultRoute && len(r.Ports) > 0 {
			return fault.Hint(fmt.Errorf("bundle %s: network %s is %w by published ports %v", b.Dir(), a.Network, fault.ErrBusy, r.Ports),
				"all at once: ctr-net detach %s", b.Dir())
		}
	}
	e := &entry{Bundle: b.Dir(), Record: *r}
	if err := s.leave(ctx, e, which); err != nil {
		return err
	}
	return b.WriteJSON(bundle.NetworkFile, e.Record)
}

// detachAll ends all attachments and gives config.json its own empty network namespace back. The caller holds
// the bundle's lock.
func (s *Store) detachAll(ctx context.Context, b *bundle.Bundle, r *Record) error {
	if r.Mode == NetworksMode {
		if err := s.leave(ctx, &entry{Bundle: b.Dir(), Record: *r}, r.Attachments); err != nil {
			return err
		}
	}
	err := b.Update(func(spec *specs.Spec) error {
		if spec.Linux == nil {
			spec.Linux = &specs.Linux{}
		}
		setNetns(spec.Linux, NoneMode, "")
		for _, m := range etcMounts() {
			spec.Mounts = slices.DeleteFunc(spec.Mounts, func(have specs.Mount) bool {
				return have.Destination == m.Destination && have.Source == m.Source
			})
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range []string{hostsFile, resolvFile, hostnameFile} {
		if err := os.Remove(filepath.Join(b.Path(bundle.EtcDir), f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return b.Remove(bundle.NetworkFile)
}

// withdraw takes rules and names away; the attachments are marked as leaving.
func (s *Store) withdraw(ctx context.Context, e *entry, which []*Attachment) error {
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Unlock()
	var networks []*Network
	for _, a := range which {
		a.State = Leaving
		if n, err := s.Load(a.Network); err == nil {
			networks = append(networks, n)
		}
	}
	if err := s.put(e); err != nil {
		return err
	}
	forget(e.Ports)
	return s.sync(ctx, networks)
}

// leave ends attachments: rules and names first, then DEL. If none is left the namespace and the entry go too.
// An attachment whose DEL fails stays for another try.
func (s *Store) leave(ctx context.Context, e *entry, which []*Attachment) error {
	if err := s.withdraw(ctx, e, which); err != nil {
		return err
	}
	var errs []error
	for _, a := range slices.Backward(which) {
		if err := s.del(ctx, e, a); err != nil {
			errs = append(errs, err)
			continue
		}
		e.Attachments = slices.DeleteFunc(slices.Clone(e.Attachments), func(x *Attachment) bool { return x == a })
	}
	if len(e.Attachments) > 0 {
		l, err := s.lock()
		if err != nil {
			return err
		}
		defer l.Unlock()
		return errors.Join(append(errs, s.put(e))...)
	}
	if err := dropNetns(s.netns(e.ID)); err != nil { // by id: a document must not name what is unmounted
		return err
	}
	if err := os.Remove(s.entryPath(e.ID)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// alive says whether a record's attachments are all there. The caller holds the bundle's lock, so that an
// attachment in between was left by a tool that died.
func (s *Store) alive(r *Record) bool {
	if !netnsAlive(r.Netns) || len(r.Attachments) == 0 {
		return false
	}
	if _, err := s.entry(r.ID); err != nil {
		return false
	}
	return !slices.ContainsFunc(r.Attachments, func(a *Attachment) bool { return a.State != Joined })
}

// reap tears down the entries among those chosen that are dead: their bundle is gone or knows nothing of them,
// their namespace is gone, or a tool died in the middle. It returns their ids.
func (s *Store) reap(ctx context.Context, chosen func(*entry) bool) (dead []string, err error) {
	all, err := s.entries()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range all {
		if !chosen(e) {
			continue
		}
		id, err := s.reapOne(ctx, e)
		if err != nil {
			errs = append(errs, err)
		} else if id {
			dead = append(dead, e.ID)
		}
	}
	return dead, errors.Join(errs...)
}

func (s *Store) reapOne(ctx context.Context, e *entry) (dead bool, err error) {
	b, err := bundle.Open(e.Bundle)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return true, s.leave(ctx, e, e.Attachments)
	}
	l, err := atomicfile.TryLockPath(b.Path(bundle.EtcDir), true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, nil // somebody is at work on it
	}
	defer l.Unlock()
	// What was read before the lock may be old by now.
	if e, err = s.entry(e.ID); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	r, err := Read(b)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if r == nil || r.ID != e.ID {
		return true, s.leave(ctx, e, e.Attachments)
	}
	if s.alive(&e.Record) && s.alive(r) {
		return false, nil
	}
	return true, s.detachAll(ctx, b, &e.Record)
}

// GC finishes what tools that died have begun: attachments, handles, leases. It returns what it removed.
func (s *Store) GC(ctx context.Context) (removed []string, err error) {
	dead, err := s.reap(ctx, func(*entry) bool { return true })
	errs := []error{err}
	for _, id := range dead {
		removed = append(removed, "attachment "+id)
	}
	// An entry is written before its handle and removed after it, and both under no name but its id.
	l, err := s.lock()
	if err != nil {
		return removed, err
	}
	defer l.Unlock()
	if _, err := atomicfile.Clean(place.Attachments(s.run)); err != nil {
		errs = append(errs, err)
	}
	all, err := s.entries()
	if err != nil {
		return removed, errors.Join(append(errs, err)...)
	}
	known := map[string]bool{}
	for _, e := range all {
		known[e.ID] = true
	}
	handles, _ := os.ReadDir(place.Netns(s.run))
	for _, h := range handles {
		if !known[h.Name()] && strings.Contains(h.Name(), "-"+owner(s.run)) {
			errs = append(errs, dropNetns(s.netns(h.Name())))
			removed = append(removed, "namespace "+h.Name())
		}
	}
	freed, err := s.freeLeases(known)
	removed, errs = append(removed, freed...), append(errs, err)

	networks, err := s.List()
	errs = append(errs, err)
	for _, n := range networks {
		if !slices.ContainsFunc(all, func(e *entry) bool { return e.attachment(n.Name) != nil }) {
			continue
		}
		errs = append(errs, s.sync(ctx, []*Network{n}))
	}
	return removed, errors.Join(errs...)
}

// freeLeases removes leases of unknown ids. host-local keeps each as a file named after the address that holds
// the CNI_CONTAINERID and the interface, and locks the file "lock" in their directory.
func (s *Store) freeLeases(known map[string]bool) (freed []string, err error) {
	dirs, err := os.ReadDir(place.Leases(s.run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		dir := filepath.Join(place.Leases(s.run), d.Name())
		l, err := atomicfile.LockPath(filepath.Join(dir, "lock"), true)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			data, err := os.ReadFile(filepath.Join(dir, f.Name()))
			id, _, ok := strings.Cut(string(data), "\n")
			if id = strings.TrimSpace(id); err != nil || !ok || known[id] || !strings.Contains(id, "-"+owner(s.run)) {
				continue
			}
			errs = append(errs, os.Remove(filepath.Join(dir, f.Name())))
			freed = append(freed, "address "+f.Name()+" of network "+d.Name())
		}
		l.Unlock()
	}
	return freed, errors.Join(errs...)
}

// Apply makes the kernel match the files: the tables of all networks that have members, and the attachments of
// the bundles given where their namespaces are gone (after a reboot).
func (s *Store) Apply(ctx context.Context, bundles ...*bundle.Bundle) error {
	var errs []error
	for _, b := range bundles {
		errs = append(errs, s.reattach(ctx, b))
	}
	networks, err := s.List()
	errs = append(errs, err)
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Unlock()
	for _, n := range networks {
		members, err := s.members(n.Name)
		if err != nil {
			return err
		}
		if len(members) == 0 {
			continue
		}
		if n.own {
			publishes := slices.ContainsFunc(members, func(e *entry) bool { return len(e.Ports) > 0 })
			errs = append(errs, s.ensureBridge(n, publishes))
		}
		errs = append(errs, s.sync(ctx, []*Network{n}))
	}
	return errors.Join(errs...)
}

// reattach attaches a bundle as its record says if its namespace is gone.
func (s *Store) reattach(ctx context.Context, b *bundle.Bundle) error {
	l, err := lockBundle(b)
	if err != nil {
		return err
	}
	defer l.Unlock()
	r, err := Read(b)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Hint(fmt.Errorf("bundle %s: is not attached: %w", b.Dir(), fs.ErrNotExist), "ctr-net attach %s NETWORK", b.Dir())
	}
	if err != nil || r.Mode != NetworksMode || s.alive(r) {
		return err
	}
	o := AttachOptions{Hostname: r.Hostname, ExtraHosts: r.ExtraHosts, DNS: r.DNS}
	for _, p := range r.Ports {
		o.Publish = append(o.Publish, Publish{HostAddress: p.HostAddress, First: p.HostPort, Last: p.HostPort, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
	}
	var joins []Join
	for _, a := range r.Attachments {
		joins = append(joins, Join{Network: a.Network, Aliases: a.Aliases, IPs: a.IPs, MAC: a.MAC, Interface: a.Interface})
	}
	_, err = s.attach(ctx, b, NetworksMode, joins, o)
	return err
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	types "github.com/containernetworking/cni/pkg/types/100"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/place"
)

// Version is the version of network.json.
const Version = "1.0"

// States of an attachment. One that is not Joined while nobody holds the bundle's lock was left by a tool
// that died.
const (
	Joining = "joining"
	Joined  = "joined"
	Leaving = "leaving"
)

// NetworksMode is the mode of a bundle that has attachments.
const NetworksMode = "networks"

// A Record is a bundle's network.json (spec/network.md).
type Record struct {
	Version     string        `json:"version"`
	Mode        string        `json:"mode"`            // NetworksMode, HostMode or NoneMode
	ID          string        `json:"id,omitempty"`    // CNI_CONTAINERID
	Netns       string        `json:"netns,omitempty"` // absolute path of the handle
	Hostname    string        `json:"hostname"`
	ExtraHosts  []Host        `json:"extraHosts,omitempty"`
	DNS         []string      `json:"dns,omitempty"`
	Ports       []Port        `json:"ports,omitempty"`
	Attachments []*Attachment `json:"attachments,omitempty"`
}

// A Host is a line of a hosts file. Address may be "host-gateway".
type Host struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// An Attachment is the bundle joined to one network.
type Attachment struct {
	Network      string          `json:"network"`
	Interface    string          `json:"interface"`
	State        string          `json:"state"`
	DefaultRoute bool            `json:"defaultRoute,omitempty"` // published ports lead here
	Aliases      []string        `json:"aliases,omitempty"`
	IPs          []string        `json:"ips,omitempty"`      // asked for
	MAC          string          `json:"mac,omitempty"`      // asked for
	Conflist     json.RawMessage `json:"conflist,omitempty"` // as the plugins got it
	Result       *types.Result   `json:"result,omitempty"`   // CNI result
}

// Addresses are the attachment's addresses.
func (a *Attachment) Addresses() (addrs []netip.Addr) {
	if a.Result == nil {
		return nil
	}
	for _, ip := range a.Result.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// Gateways are the attachment's gateways.
func (a *Attachment) Gateways() (addrs []netip.Addr) {
	if a.Result == nil {
		return nil
	}
	for _, ip := range a.Result.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Gateway); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

func (r *Record) attachment(network string) *Attachment {
	for _, a := range r.Attachments {
		if a.Network == network {
			return a
		}
	}
	return nil
}

// check refuses a record that does not follow the contract; it is read before it is acted upon.
func (r *Record) check() error {
	if r.Version != Version {
		return fmt.Errorf("version: found %q, want %q", r.Version, Version)
	}
	switch r.Mode {
	case HostMode, NoneMode:
		if len(r.Attachments) > 0 {
			return fmt.Errorf("attachments: found %d, want none in mode %s", len(r.Attachments), r.Mode)
		}
		return nil
	case NetworksMode:
	default:
		return fmt.Errorf("mode: found %q, want %s, %s or %s", r.Mode, NetworksMode, HostMode, NoneMode)
	}
	if !nameRE.MatchString(r.ID) {
		return fmt.Errorf("id: found %q, want letters, digits and _.-", r.ID)
	}
	if !filepath.IsAbs(r.Netns) {
		return fmt.Errorf("netns: found %q, want an absolute path", r.Netns)
	}
	for i, a := range r.Attachments {
		if a == nil {
			return fmt.Errorf("attachments[%d]: found null", i)
		}
		if !nameRE.MatchString(a.Network) {
			return fmt.Errorf("attachments[%d].network: found %q, want a network name", i, a.Network)
		}
		if err := checkInterface(a.Interface); err != nil {
			return fmt.Errorf("attachments[%d].interface: %w", i, err)
		}
		if a.State != Joining && a.State != Joined && a.State != Leaving {
			return fmt.Errorf("attachments[%d].state: found %q, want %s, %s or %s", i, a.State, Joining, Joined, Leaving)
		}
		if a.State == Joined && a.Result == nil {
			return fmt.Errorf("attachments[%d].result: found none, want the CNI result of a joined network", i)
		}
	}
	for i, p := range r.Ports {
		if err := p.check(); err != nil {
			return fmt.Errorf("ports[%d].%w", i, err)
		}
	}
	return nil
}

// ParseRecord reads a network.json.
func ParseRecord(data []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("line %d: %w", lineOf(data, err), err)
	}
	return r, r.check()
}

// Read reads a bundle's network.json. It fails with fs.ErrNotExist where the bundle was never attached.
func Read(b *bundle.Bundle) (*Record, error) {
	r := new(Record)
	if err := b.ReadJSON(bundle.NetworkFile, r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Path(bundle.NetworkFile), err)
	}
	return r, nil
}

// An entry is what the run directory knows of a bundle: its record and where it is. It is written before
// anything is done to the kernel and removed after all is undone, so that gc can finish what a tool that
// died has begun.
type entry struct {
	Bundle string `json:"bundle"`
	Record
}

func (s *Store) entryPath(id string) string {
	return filepath.Join(place.Attachments(s.run), id+".json")
}

// lock holds off all other changes of entries, tables and hosts files below this run directory.
func (s *Store) lock() (*atomicfile.Lock, error) {
	dir := place.Attachments(s.run)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return atomicfile.LockPath(dir, true)
}

func (s *Store) put(e *entry) error {
	data, err := marshal(e)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.entryPath(e.ID), data, 0o600)
}

func (s *Store) entry(id string) (*entry, error) {
	data, err := os.ReadFile(s.entryPath(id))
	if err != nil {
		return nil, err
	}
	e := new(entry)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("%s: %w", s.entryPath(id), err)
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.entryPath(id), err)
	}
	return e, nil
}

// entries reads all entries, by id.
func (s *Store) entries() (all []*entry, err error) {
	files, err := os.ReadDir(place.Attachments(s.run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !nameRE.MatchString(id) {
			continue
		}
		e, err := s.entry(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// members are the entries that name the network, those of dead tools too.
func (s *Store) members(network string) ([]*entry, error) {
	all, err := s.entries()
	return slices.DeleteFunc(all, func(e *entry) bool { return e.attachment(network) == nil }), err
}

// A Member is a bundle on a network, as list and inspect show it.
type Member struct {
	Bundle    string       `json:"bundle"`
	ID        string       `json:"id"`
	Interface string       `json:"interface"`
	State     string       `json:"state"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Names     []string     `json:"names"`
	Ports     []Port       `json:"ports,omitempty"`
}

// Members lists the bundles on a network.
func (s *Store) Members(network string) (all []Member, err error) {
	entries, err := s.members(network)
	for _, e := range entries {
		a := e.attachment(network)
		m := Member{Bundle: e.Bundle, ID: e.ID, Interface: a.Interface, State: a.State, Addresses: a.Addresses(), Names: e.names(a)}
		if a.DefaultRoute {
			m.Ports = e.Ports
		}
		all = append(all, m)
	}
	return all, err
}

// names are what other members call the bundle on the network of a.
func (r *Record) names(a *Attachment) []string {
	names := []string{r.Hostname}
	for _, n := range a.Aliases {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

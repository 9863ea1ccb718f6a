// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// A Port is a published port: connections to the host's port go to the container's.
type Port struct {
	HostAddress   string `json:"hostAddress,omitempty"` // empty: all of the host's
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"` // tcp, udp, sctp
}

func (p Port) String() string {
	s := fmt.Sprintf("%d:%d/%s", p.HostPort, p.ContainerPort, p.Protocol)
	if a, err := netip.ParseAddr(p.HostAddress); err == nil && a.Is6() {
		return "[" + p.HostAddress + "]:" + s
	}
	if p.HostAddress != "" {
		return p.HostAddress + ":" + s
	}
	return s
}

// address is the host address; ok is false for all addresses of both families.
func (p Port) address() (a netip.Addr, ok bool) {
	if p.HostAddress == "" {
		return a, false
	}
	a, _ = netip.ParseAddr(p.HostAddress)
	return a, true
}

func (p Port) check() error {
	if a, err := netip.ParseAddr(p.HostAddress); p.HostAddress != "" && (err != nil || a.Zone() != "") {
		return fmt.Errorf("hostAddress: found %q, want an IP address", p.HostAddress)
	}
	if p.HostPort == 0 {
		return errors.New("hostPort: found 0, want 1 to 65535")
	}
	if p.ContainerPort == 0 {
		return errors.New("containerPort: found 0, want 1 to 65535")
	}
	return checkProtocol(p.Protocol)
}

func checkProtocol(s string) error {
	if s != "tcp" && s != "udp" && s != "sctp" {
		return fmt.Errorf("protocol: found %q, want tcp, udp or sctp", s)
	}
	return nil
}

// conflicts says whether both want the same packets.
func (p Port) conflicts(q Port) bool {
	if p.HostPort != q.HostPort || p.Protocol != q.Protocol {
		return false
	}
	a, ok1 := p.address()
	b, ok2 := q.address()
	if !ok1 || !ok2 {
		return true
	}
	return a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// A Publish asks for a Port.
type Publish struct {
	HostAddress   string
	First, Last   uint16 // host ports to choose from; 0: any free one
	ContainerPort uint16
	Protocol      string
}

// ParsePublish reads [ADDRESS:][HOST]:CONTAINER[/PROTOCOL], where HOST and CONTAINER may be ranges. Ranges of
// the same length go together one by one; one container port takes the first free one of a range.
func ParsePublish(s string) ([]Publish, error) {
	bad := func(format string, args ...any) ([]Publish, error) {
		return nil, fault.Hint(fault.Usagef("--publish %s: %s", s, fmt.Sprintf(format, args...)),
			"the form is [ADDRESS:][HOST:]CONTAINER[/tcp|/udp|/sctp], as in 127.0.0.1:8080:80")
	}
	rest, proto, ok := strings.Cut(s, "/")
	if proto = strings.ToLower(proto); !ok {
		proto = "tcp"
	}
	if err := checkProtocol(proto); err != nil {
		return bad("%v", err)
	}
	var host, container, addr string
	i := strings.LastIndexByte(rest, ':')
	container = rest[i+1:]
	if i >= 0 {
		host = rest[:i]
		if j := strings.LastIndexByte(host, ':'); j >= 0 {
			addr, host = host[:j], host[j+1:]
			a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]"))
			if err != nil || a.Zone() != "" {
				return bad("address: found %q, want an IP address", addr)
			}
			if a.Is6() && a.IsLoopback() {
				return bad("address: the kernel does not forward from ::1; use 127.0.0.1")
			}
			addr = a.Unmap().String()
		}
	}
	c1, c2, err := portRange(container)
	if err != nil {
		return bad("container port: %v", err)
	}
	var h1, h2 uint16
	if host != "" {
		if h1, h2, err = portRange(host); err != nil {
			return bad("host port: %v", err)
		}
	}
	n := int(c2) - int(c1) + 1
	if h1 != 0 && n > 1 && int(h2)-int(h1)+1 != n {
		return bad("%d host ports for %d container ports", int(h2)-int(h1)+1, n)
	}
	var all []Publish
	for k := range n {
		p := Publish{HostAddress: addr, First: h1, Last: h2, ContainerPort: c1 + uint16(k), Protocol: proto}
		if h1 != 0 && n > 1 {
			p.First, p.Last = h1+uint16(k), h1+uint16(k)
		}
		all = append(all, p)
	}
	return all, nil
}

func portRange(s string) (first, last uint16, err error) {
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		b = a
	}
	if first, err = port(a); err == nil {
		last, err = port(b)
	}
	if err == nil && last < first {
		err = fmt.Errorf("found %q, want a rising range", s)
	}
	return first, last, err
}

func port(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("found %q, want 1 to 65535", s)
	}
	return uint16(n), nil
}

// An occupant is a port that somebody has, for messages.
type occupant struct {
	Port
	by, hint string
}

// choose finds host ports for what is asked, one by one. taken are the ports of other containers; sockets of
// the host are asked of the kernel.
func choose(ctx context.Context, ask []Publish, taken []occupant) (ports []Port, err error) {
	try := func(q Publish, n uint16) (Port, error) {
		p := Port{HostAddress: q.HostAddress, HostPort: n, ContainerPort: q.ContainerPort, Protocol: q.Protocol}
		for _, t := range taken {
			if p.conflicts(t.Port) {
				err := fmt.Errorf("publish %s: host port is %w by %s", p, fault.ErrBusy, t.by)
				if t.hint != "" {
					err = fault.Hint(err, "%s", t.hint)
				}
				return p, err
			}
		}
		if slices.ContainsFunc(ports, p.conflicts) {
			return p, fault.Usagef("publish %s: the host port is given twice", p)
		}
		return p, bindable(p)
	}
	for _, q := range ask {
		var p Port
		var err error
		if q.First == 0 {
			for range 64 {
				if p, err = try(q, uint16(32768+rand.IntN(28232))); err == nil {
					break
				}
			}
		} else {
			for n := int(q.First); n <= int(q.Last); n++ {
				if p, err = try(q, uint16(n)); err == nil || !errors.Is(err, fault.ErrBusy) && !errors.Is(err, fault.ErrUsage) {
					break
				}
			}
		}
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// bindable asks the kernel whether a socket of the host has the port: forwarding would take its packets.
func bindable(p Port) error {
	hosts := []string{p.HostAddress}
	if p.HostAddress == "" {
		hosts = []string{"0.0.0.0", "::"}
	}
	for _, h := range hosts {
		err := bind(netip.MustParseAddr(h), p)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			err := fmt.Errorf("publish %s: host port is %w by %s", p, fault.ErrBusy, socketOwner(p))
			return fault.Hint(err, "choose another, or leave it out for a free one: --publish %d/%s", p.ContainerPort, p.Protocol)
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return fault.Usagef("publish %s: %s is no address of this host", p, h)
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT):
			// no such sockets here, so nobody has one
		case err != nil:
			return fmt.Errorf("publish %s: %w", p, err)
		}
	}
	return nil
}

func bind(a netip.Addr, p Port) error {
	var family int
	var sa unix.Sockaddr
	if a.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(p.HostPort), Addr: a.As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(p.HostPort), Addr: a.As16()}
	}
	kind, proto := unix.SOCK_STREAM, 0
	switch p.Protocol {
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		proto = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if p.Protocol != "udp" {
		// Connections of the past do not count, listeners do.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

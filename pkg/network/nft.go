// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// Rules is the network's nftables table as text for nft(8), a function of the network and its members. It is
// complete: it replaces the table that is there in one transaction.
func (s *Store) Rules(n *Network) (string, error) {
	members, err := s.members(n.Name)
	if err != nil {
		return "", err
	}
	return n.rules(members), nil
}

func (n *Network) rules(members []*entry) string {
	var b strings.Builder
	in, out := fmt.Sprintf("iifname %q", n.Bridge), fmt.Sprintf("oifname %q", n.Bridge)
	notOut := fmt.Sprintf("oifname != %q", n.Bridge)
	rule := func(words ...string) { b.WriteString("\t\t" + strings.Join(words, " ") + "\n") }
	chain := func(head string, rules func()) {
		b.WriteString("\tchain " + head + "\n")
		rules()
		b.WriteString("\t}\n")
	}
	fmt.Fprintf(&b, "table inet %s {\n\tcomment \"ctr-net network %s\"\n", n.Bridge, n.Name)

	// Published ports allow packets for 127.0.0.0/8 to be routed onto the bridge (route_localnet); none may
	// come from it (CVE-2020-8558).
	chain("guard {\n\t\ttype filter hook prerouting priority raw; policy accept;", func() {
		rule(in, "ip daddr 127.0.0.0/8 drop")
		rule(in, "ip saddr 127.0.0.0/8 drop")
	})
	// Who is not on the network reaches published ports and answers, no more: neither other networks nor
	// hosts that route to our subnet.
	chain("forward {\n\t\ttype filter hook forward priority filter; policy accept;", func() {
		rule(in, out, "accept")
		if n.Internal {
			rule(in, "drop")
			rule(out, "drop")
			return
		}
		rule(out, "ct state established,related accept")
		rule(out, "ct status dnat accept")
		rule(out, "drop")
	})
	if !n.Internal {
		chain("postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;", func() {
			rule(out, "ip saddr 127.0.0.0/8 masquerade")
			for _, p := range n.Subnets {
				from := family(p.Addr().Is4()) + " saddr " + p.String()
				rule(from, notOut, "masquerade")
				// A member that calls a published port of this network: the answer has to come back through
				// here. By address, for in packets that br_netfilter hands over there is no iifname.
				rule(from, out, "ct status dnat masquerade")
			}
		})
		if ports := n.portRules(members); len(ports) > 0 {
			chain("ports {", func() {
				for _, r := range ports {
					rule(r)
				}
			})
			// Only packets to this host's own addresses (CVE-2019-9946).
			for _, hook := range []string{"prerouting", "output"} {
				chain(fmt.Sprintf("%s {\n\t\ttype nat hook %s priority -100; policy accept;", hook, hook), func() {
					rule("fib daddr type local jump ports")
				})
			}
		}
	}
	b.WriteString("}\n")
	return b.String()
}

func family(four bool) string {
	if four {
		return "ip"
	}
	return "ip6"
}

// portRules are the rules of published ports: one for each port and family of the member's address.
func (n *Network) portRules(members []*entry) (rules []string) {
	for _, e := range members {
		a := e.attachment(n.Name)
		if !a.DefaultRoute || a.State != Joined {
			continue
		}
		for _, p := range e.Ports {
			for _, addr := range a.Addresses() {
				host, given := p.address()
				if given && host.Is4() != addr.Is4() {
					continue
				}
				match, proto, to := "", "ipv4", fmt.Sprintf("ip to %s:%d", addr, p.ContainerPort)
				if addr.Is6() {
					proto, to = "ipv6", fmt.Sprintf("ip6 to [%s]:%d", addr, p.ContainerPort)
				}
				if given && !host.IsUnspecified() {
					match = fmt.Sprintf("%s daddr %s ", family(host.Is4()), host)
				}
				rules = append(rules, fmt.Sprintf("meta nfproto %s %s%s dport %d dnat %s comment %q", proto, match, p.Protocol, p.HostPort, to, e.ID))
			}
		}
	}
	return rules
}

// setTable puts a table in place of the one of that name.
func setTable(ctx context.Context, name, text string) error {
	return nft(ctx, fmt.Sprintf("table inet %s\ndelete table inet %s\n%s", name, name, text))
}

// dropTable removes a table; none there is success.
func dropTable(ctx context.Context, name string) error {
	return nft(ctx, fmt.Sprintf("table inet %s\ndelete table inet %s\n", name, name))
}

func nft(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fault.Hint(fmt.Errorf("nft: %w", fs.ErrNotExist), "install nftables: apt-get install nftables")
	}
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// foreignPorts lists the ports that others forward on this host: CNI's portmap (of podman, nerdctl, containerd)
// and networks of other run directories. A kernel or host without nft has none.
func foreignPorts(ctx context.Context, own func(table string) bool) (all []occupant) {
	var tables struct {
		Nftables []struct {
			Table *struct{ Family, Name string }
		}
	}
	if nftJSON(ctx, &tables, "list", "tables") != nil {
		return nil
	}
	for _, t := range tables.Nftables {
		chain := ""
		switch {
		case t.Table == nil:
		case t.Table.Name == "cni_hostport":
			chain = "hostports"
		case t.Table.Family == "inet" && strings.HasPrefix(t.Table.Name, "ctr-") && !own(t.Table.Name):
			chain = "ports"
		}
		if chain == "" {
			continue
		}
		var rules ruleList
		if nftJSON(ctx, &rules, "list", "chain", t.Table.Family, t.Table.Name, chain) == nil {
			all = append(all, rules.occupants()...)
		}
	}
	return all
}

func nftJSON(ctx context.Context, v any, args ...string) error {
	out, err := exec.CommandContext(ctx, "nft", append([]string{"-j"}, args...)...).Output()
	if err != nil {
		return err
	}
	return json.Unmarshal(out, v)
}

// ruleList is what libnftables-json(5) says of a chain, as far as we read it.
type ruleList struct {
	Nftables []struct {
		Rule *struct {
			Comment string
			Expr    []struct {
				Match *struct {
					Left struct {
						Payload struct{ Protocol, Field string }
					}
					Right json.RawMessage
				}
			}
		}
	}
}

func (l ruleList) occupants() (all []occupant) {
	for _, r := range l.Nftables {
		if r.Rule == nil {
			continue
		}
		o := occupant{by: "CNI container " + r.Rule.Comment}
		for _, x := range r.Rule.Expr {
			if x.Match == nil {
				continue
			}
			switch x.Match.Left.Payload.Field {
			case "dport":
				o.Protocol = x.Match.Left.Payload.Protocol
				json.Unmarshal(x.Match.Right, &o.HostPort)
			case "daddr":
				json.Unmarshal(x.Match.Right, &o.HostAddress)
			}
		}
		if o.HostPort != 0 {
			all = append(all, o)
		}
	}
	return all
}

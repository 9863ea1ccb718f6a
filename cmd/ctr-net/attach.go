// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/network"
)

func attach(store func() *network.Store) *cobra.Command {
	var o network.AttachOptions
	var publish, hosts, ips []string
	var mac string
	c := &cobra.Command{
		Use:   "attach [OPTION…] BUNDLE NETWORK[:KEY=VALUE,…]…",
		Short: "join a bundle to networks",
		Long: `Join a bundle to networks. NETWORK may carry options: alias=NAME, ip=ADDRESS, mac=ADDRESS, interface=NAME.
NETWORK host is the host's own network namespace, none is a namespace with nothing but lo.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := bundle.Open(args[0])
			if err != nil {
				return err
			}
			var joins []network.Join
			for _, a := range args[1:] {
				j, err := parseJoin(a)
				if err != nil {
					return err
				}
				joins = append(joins, j)
			}
			joins[0].IPs = append(joins[0].IPs, ips...)
			if mac != "" {
				joins[0].MAC = mac
			}
			if o.Publish, err = parsePublish(publish); err != nil {
				return err
			}
			for _, h := range hosts {
				name, addr, ok := strings.Cut(h, ":")
				if !ok {
					return fault.Usagef("--add-host %s: want NAME:ADDRESS", h)
				}
				o.ExtraHosts = append(o.ExtraHosts, network.Host{Name: name, Address: strings.Trim(addr, "[]")})
			}
			_, err = store().Attach(c.Context(), b, joins, o)
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&publish, "publish", "p", nil, "`[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`: lead a port of the host here; ranges as 8000-8010")
	f.StringArrayVar(&o.Aliases, "alias", nil, "a further `NAME` for the other members of all networks named")
	f.StringVar(&o.Hostname, "hostname", "", "the host `NAME` (default: config.json's, else the bundle directory's)")
	f.StringArrayVar(&ips, "ip", nil, "the `ADDRESS` on the first network")
	f.StringVar(&mac, "mac", "", "the hardware `ADDRESS` on the first network")
	f.StringArrayVar(&hosts, "add-host", nil, "`NAME:ADDRESS` for /etc/hosts; ADDRESS host-gateway is this host")
	f.StringArrayVar(&o.DNS, "dns", nil, "`ADDRESS` of a resolver in place of the host's")
	return c
}

// parsePublish gives ports without an address that of $CTR_PUBLISH_ADDRESS.
func parsePublish(specs []string) (all []network.Publish, err error) {
	for _, s := range specs {
		ps, err := network.ParsePublish(s)
		if err != nil {
			return nil, err
		}
		if env := os.Getenv("CTR_PUBLISH_ADDRESS"); env != "" && ps[0].HostAddress == "" {
			if ps, err = network.ParsePublish(env + ":" + withHost(s)); err != nil {
				return nil, fault.Usagef("CTR_PUBLISH_ADDRESS=%s: %w", env, err)
			}
		}
		all = append(all, ps...)
	}
	return all, nil
}

// withHost makes "80" ":80", so that an address can stand before it.
func withHost(s string) string {
	if strings.Contains(s, ":") {
		return s
	}
	return ":" + s
}

// parseJoin reads NETWORK[:KEY=VALUE,…].
func parseJoin(s string) (j network.Join, err error) {
	name, opts, has := strings.Cut(s, ":")
	j.Network = name
	if !has {
		return j, nil
	}
	for _, o := range strings.Split(opts, ",") {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "alias":
			j.Aliases = append(j.Aliases, v)
		case "ip":
			j.IPs = append(j.IPs, v)
		case "mac":
			j.MAC = v
		case "interface":
			j.Interface = v
		default:
			return j, fault.Usagef("network %s: option %q: want alias=, ip=, mac= or interface=", s, o)
		}
	}
	return j, nil
}

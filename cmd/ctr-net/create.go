// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/network"
)

func create(store func() *network.Store) *cobra.Command {
	var o network.CreateOptions
	var subnets, gateways, ranges, labels []string
	c := &cobra.Command{
		Use:   "create [OPTION…] NAME",
		Short: "make a bridge network",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.Subnets, err = parseAll("--subnet", subnets, netip.ParsePrefix); err != nil {
				return err
			}
			if o.Gateways, err = parseAll("--gateway", gateways, netip.ParseAddr); err != nil {
				return err
			}
			if o.Ranges, err = parseAll("--ip-range", ranges, netip.ParsePrefix); err != nil {
				return err
			}
			if o.Labels, err = parseLabels(labels); err != nil {
				return err
			}
			n, err := store().Create(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), n.Name)
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&subnets, "subnet", nil, "address prefix `CIDR`; once for each family (default: a free /24 of 10.0.0.0/8)")
	f.StringArrayVar(&gateways, "gateway", nil, "`ADDRESS` of the bridge in the subnet (default: the first)")
	f.StringArrayVar(&ranges, "ip-range", nil, "give out addresses of this part `CIDR` of the subnet only")
	f.BoolVar(&o.IPv6, "ipv6", false, "IPv6 too, with a unique local prefix if no --subnet is IPv6")
	f.BoolVar(&o.Internal, "internal", false, "no way out of the network and no published ports")
	f.IntVar(&o.MTU, "mtu", 0, "largest packet, `BYTES` (default: 1500, or the default route's if that is less)")
	f.StringArrayVar(&labels, "label", nil, "`KEY=VALUE` kept with the network")
	return c
}

func parseAll[T any](flag string, words []string, parse func(string) (T, error)) (all []T, err error) {
	for _, w := range words {
		v, err := parse(w)
		if err != nil {
			return nil, fault.Usagef("%s %s: %w", flag, w, err)
		}
		all = append(all, v)
	}
	return all, nil
}

func parseLabels(words []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		if k == "" {
			return nil, fault.Usagef("--label %s: want KEY=VALUE", w)
		}
		labels[k] = v
	}
	return labels, nil
}

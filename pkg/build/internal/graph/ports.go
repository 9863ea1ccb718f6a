// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"golang.org/x/sys/unix"
)

// maxPorts bounds what one EXPOSE range may name.
const maxPorts = 65535

// expose adds ports: PORT[-PORT][/PROTO], several to a word after expansion. Docker's -p forms, an address
// or a host port before a colon, mean nothing in an image and are refused.
func (b *builder) expose(s *stage, c *instructions.ExposeCommand) error {
	cc := &s.config.Config
	cc.ExposedPorts = cloneMap(cc.ExposedPorts)
	var all []string
	for _, word := range c.Ports {
		words, err := b.lex.ProcessWords(word, shell.EnvsFromSlice(s.env))
		if err != nil {
			return err
		}
		for _, w := range words {
			ports, err := parsePorts(w)
			if err != nil {
				return err
			}
			all = append(all, ports...)
		}
	}
	for _, p := range all {
		cc.ExposedPorts[p] = struct{}{}
	}
	slices.Sort(all)
	s.note("EXPOSE [" + strings.Join(slices.Compact(all), " ") + "]")
	return nil
}

func parsePorts(word string) ([]string, error) {
	ports, proto, ok := strings.Cut(word, "/")
	if !ok {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fmt.Errorf("%s: found protocol %q, want tcp, udp or sctp", word, proto)
	}
	from, to, isRange := strings.Cut(ports, "-")
	if !isRange {
		to = from
	}
	lo, err1 := strconv.ParseUint(from, 10, 16)
	hi, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || lo > hi || hi > maxPorts {
		return nil, fmt.Errorf("%s: want PORT[-PORT][/PROTOCOL] with ports up to %d", word, maxPorts)
	}
	var out []string
	for p := lo; p <= hi; p++ {
		out = append(out, fmt.Sprintf("%d/%s", p, proto))
	}
	return out, nil
}

// checkSignal takes a name, with or without SIG, or a number, as kill(1) does, and RTMIN+n.
func checkSignal(name string) error {
	if n, err := strconv.Atoi(name); err == nil {
		if n > 0 && n <= 64 {
			return nil
		}
		return fmt.Errorf("found signal %d, want 1 to 64", n)
	}
	up := "SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if unix.SignalNum(up) != 0 || strings.HasPrefix(up, "SIGRTMIN") || strings.HasPrefix(up, "SIGRTMAX") {
		return nil
	}
	return fmt.Errorf("found signal %q, want a name or number", name)
}

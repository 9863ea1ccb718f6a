// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types "github.com/containernetworking/cni/pkg/types/100"
)

func TestParsePublish(t *testing.T) {
	tcp := func(addr string, first, last, c uint16) Publish { return Publish{addr, first, last, c, "tcp"} }
	for in, want := range map[string][]Publish{
		"80":                     {tcp("", 0, 0, 80)},
		"8080:80":                {tcp("", 8080, 8080, 80)},
		":80":                    {tcp("", 0, 0, 80)},
		"127.0.0.1::80":          {tcp("127.0.0.1", 0, 0, 80)},
		"127.0.0.1:8080:80/tcp":  {tcp("127.0.0.1", 8080, 8080, 80)},
		"[2001:db8::1]:81:80":    {tcp("2001:db8::1", 81, 81, 80)},
		"2001:db8::1:81:80":      {tcp("2001:db8::1", 81, 81, 80)},
		"[::]:81:80":             {tcp("::", 81, 81, 80)},
		"::ffff:192.0.2.1:81:80": {tcp("192.0.2.1", 81, 81, 80)},
		"8000-8001:80-81":        {tcp("", 8000, 8000, 80), tcp("", 8001, 8001, 81)},
		"8000-8010:80":           {tcp("", 8000, 8010, 80)},
		"80-81":                  {tcp("", 0, 0, 80), tcp("", 0, 0, 81)},
		"53:53/udp":              {{"", 53, 53, 53, "udp"}},
		"53:53/SCTP":             {{"", 53, 53, 53, "sctp"}},
	} {
		got, err := ParsePublish(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", ":", "0", "65536", "-1", "+80", "80/", "80/icmp", "a:80", "1.2.3:80:80", "80-79", "8000-8002:80-81",
		"[::1]:80:80", "1.2.3.4:80:80:80", "fe80::1%eth0:80:80", "80:80/tcp/udp", " 80", "8000-:80", "80:", "1.2.3.4:80:"} {
		if got, err := ParsePublish(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{"80", "127.0.0.1:8000-8010:80-90/udp", "[::]:1:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := ParsePublish(s)
		if err == nil && len(all) == 0 {
			t.Error("no port and no error")
		}
		for _, p := range all {
			if p.First != 0 {
				q := Port{p.HostAddress, p.First, p.ContainerPort, p.Protocol}
				if err := q.check(); err != nil {
					t.Errorf("%q: %v", s, err)
				}
				if back, err := ParsePublish(q.String()); err != nil || back[0].HostAddress != q.HostAddress {
					t.Errorf("%q: %s: %v %v", s, q, back, err)
				}
			}
		}
	})
}

func TestConflicts(t *testing.T) {
	p := func(a string) Port { return Port{a, 80, 1, "tcp"} }
	for _, x := range []struct {
		a, b Port
		want bool
	}{
		{p(""), p("127.0.0.1"), true}, {p("0.0.0.0"), p("127.0.0.1"), true}, {p("127.0.0.1"), p("127.0.0.2"), false},
		{p("::"), p("127.0.0.1"), false}, {p("::"), p(""), true}, {p(""), Port{"", 80, 1, "udp"}, false}, {p(""), Port{"", 81, 1, "tcp"}, false},
	} {
		if x.a.conflicts(x.b) != x.want || x.b.conflicts(x.a) != x.want {
			t.Errorf("%v and %v: want %v", x.a, x.b, x.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"", "host", "none", "../x", ".x", "a/b", "a b", "a\n", "-x", strings.Repeat("a", 129), "é"} {
		if CheckName(bad) == nil {
			t.Errorf("%q is taken for a network name", bad)
		}
	}
	for _, name := range []string{"a", "my_project_default", "x.y+z-1", strings.Repeat("a", 128), "_._"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
		b := bridgeName("/var/lib/ctr", name, 0)
		if err := checkInterface(b); err != nil {
			t.Error(err)
		}
		if b == bridgeName("/other", name, 0) || b == bridgeName("/var/lib/ctr", name, 1) {
			t.Errorf("%s: bridges of two roots have the same name %s", name, b)
		}
	}
	if id := newID("/run/ctr", "/x/Web.Two_x-1"); !regexp.MustCompile(`^Web-Two-x-1-[0-9a-f]{14}$`).MatchString(id) {
		t.Errorf("id %s", id)
	}
}

func TestFreeSubnet(t *testing.T) {
	p, err := freeSubnet("seed", nil)
	if err != nil || p.Bits() != 24 || p.Addr().As4()[0] != 10 || p.Addr().As4()[1] < 64 {
		t.Fatalf("%v %v", p, err)
	}
	q, err := freeSubnet("seed", []use{{p, "x"}})
	if err != nil || q.Overlaps(p) {
		t.Errorf("%v after %v: %v", q, p, err)
	}
	if q, err := freeSubnet("seed", []use{{netip.MustParsePrefix("10.64.0.0/10"), ""}, {netip.MustParsePrefix("10.128.0.0/9"), ""}}); err != nil || q.Addr().As4()[1] >= 64 {
		t.Errorf("%v %v", q, err)
	}
	if q, err := freeSubnet("seed", []use{{netip.MustParsePrefix("10.0.0.0/8"), ""}}); err == nil {
		t.Errorf("%v in a full pool", q)
	}
}

func TestFilterResolv(t *testing.T) {
	for _, x := range []struct {
		in, want string
		dns      []string
	}{
		{"search a\nnameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0\n", "search a\nnameserver 192.0.2.1\noptions edns0\n", nil},
		{"nameserver 127.0.0.53\nnameserver ::1\n", "nameserver 127.0.0.53\nnameserver ::1\n", nil},
		{"nameserver 192.0.2.1\nsearch a\n", "nameserver 192.0.2.2\nsearch a\n", []string{"192.0.2.2"}},
		{"", "", nil},
	} {
		if got := string(filterResolv([]byte(x.in), x.dns)); got != x.want {
			t.Errorf("%q: got %q, want %q", x.in, got, x.want)
		}
	}
}

func TestWriteHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	for _, step := range []struct{ ours, append, want string }{
		{"long line one\nline two\n", "theirs\n", "long line one\nline two\n" + hostsEnd + "theirs\n"},
		{"short\n", "", "short\n" + hostsEnd + "theirs\n"},
		{"short\nand longer again\n", "", "short\nand longer again\n" + hostsEnd + "theirs\n"},
	} {
		if err := writeHosts(path, step.ours, true); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(path)
		b = append(b, step.append...)
		os.WriteFile(path, b, 0o644)
		if string(b) != step.want {
			t.Errorf("got %q, want %q", b, step.want)
		}
	}
	// A link or FIFO in the place is not followed.
	for _, plant := range []func(string) error{
		func(p string) error { return os.Symlink("/etc/hosts", p) },
		func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		p := filepath.Join(t.TempDir(), "hosts")
		if err := plant(p); err != nil {
			t.Fatal(err)
		}
		if err := writeHosts(p, "x\n", true); err == nil {
			t.Error("written through a link or a directory")
		}
	}
}

// TestRules compares the table of a network with a golden file; UPDATE=1 rewrites it.
func TestRules(t *testing.T) {
	data, err := os.ReadFile("../../spec/testdata/network/good/two-families.conflist")
	if err != nil {
		t.Fatal(err)
	}
	n, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	result := func(s string) *types.Result {
		r := new(types.Result)
		if err := json.Unmarshal([]byte(s), r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	e := &entry{Bundle: "/b", Record: Record{ID: "web-1", Ports: []Port{
		{"", 8080, 80, "tcp"}, {"127.0.0.1", 53, 53, "udp"}, {"0.0.0.0", 9000, 9000, "sctp"}, {"2001:db8::1", 81, 80, "tcp"},
	}, Attachments: []*Attachment{{Network: n.Name, State: Joined, DefaultRoute: true,
		Result: result(`{"ips":[{"address":"10.70.0.2/24"},{"address":"fd00::2/64"}]}`)}}}}
	leaving := &entry{Record: Record{ID: "gone", Ports: e.Ports, Attachments: []*Attachment{{Network: n.Name, State: Leaving, DefaultRoute: true}}}}
	got := n.rules([]*entry{e, leaving})
	const golden = "testdata/rules.nft"
	if os.Getenv("UPDATE") != "" {
		os.MkdirAll("testdata", 0o755)
		os.WriteFile(golden, []byte(got), 0o644)
	}
	want, _ := os.ReadFile(golden)
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	good, _ := filepath.Glob("../../spec/testdata/network/*/*.conflist")
	for _, p := range good {
		b, _ := os.ReadFile(p)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Parse(b)
		if err != nil {
			return
		}
		s := NewStore("/r", "/run")
		eff, err := s.effective(n, false)
		if err != nil {
			t.Fatal(err)
		}
		if n.own { // what goes to plugins has to be a conflist
			if _, err := libcni.NetworkConfFromBytes(eff); err != nil && len(n.Plugins) > 1 {
				t.Logf("%s: %v", eff, err)
			}
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	good, _ := filepath.Glob("../../spec/testdata/network/*/*.json")
	for _, p := range good {
		b, _ := os.ReadFile(p)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRecord(b); err == nil {
			r.hosts(nil)
		}
	})
}

// TestVectors reads spec/testdata/network and the examples of spec/network.md. What is bad has to be refused
// with the words that its file name says, after the first "--" and with "-" for anything.
func TestVectors(t *testing.T) {
	parse := func(kind string, data []byte) error {
		if kind == "conflist" {
			_, err := Parse(data)
			if err != nil {
				return err
			}
			_, err = libcni.NetworkConfFromBytes(data)
			return err
		}
		_, err := ParseRecord(data)
		return err
	}
	files, _ := filepath.Glob("../../spec/testdata/network/*/*")
	if len(files) < 10 {
		t.Fatalf("%d vectors", len(files))
	}
	for _, p := range files {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		kind := strings.TrimPrefix(filepath.Ext(p), ".")
		err = parse(kind, data)
		if filepath.Base(filepath.Dir(p)) == "good" {
			if err != nil {
				t.Errorf("%s: %v", p, err)
			}
			continue
		}
		reason := strings.TrimSuffix(filepath.Base(p), filepath.Ext(p))
		pattern := strings.ReplaceAll(regexp.QuoteMeta(reason), "-", ".*")
		if err == nil || !regexp.MustCompile(pattern).MatchString(err.Error()) {
			t.Errorf("%s: refused with %v, want %q", p, err, reason)
		}
	}
	page, err := os.ReadFile("../../spec/network.md")
	if err != nil {
		t.Fatal(err)
	}
	fences := regexp.MustCompile("(?s)```json title=\"(.*?)\"\n(.*?)```").FindAllSubmatch(page, -1)
	if len(fences) < 2 {
		t.Fatalf("%d examples in spec/network.md", len(fences))
	}
	for _, f := range fences {
		if err := parse(strings.TrimPrefix(filepath.Ext(string(f[1])), "."), f[2]); err != nil {
			t.Errorf("example %s: %v", f[1], err)
		}
	}
}

# The two commands of README.md are "make try" and "make test"; the rest is for people who hack on ctr.
PREFIX  = /usr/local
DESTDIR =
GO      = go

VERSION != git describe --always --dirty --tags 2>/dev/null || echo devel
LDFLAGS = -s -w -X github.com/ctr-tools/ctr/pkg/cli.Version=$(VERSION)
BUILD   = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false
TOOLS   = ctr-fetch ctr-build ctr-push ctr-run ctr-net ctr-vol ctr-compose
CNI     = github.com/containernetworking/plugins/plugins
PLUGINS = main/bridge main/loopback main/macvlan main/ipvlan ipam/host-local ipam/dhcp ipam/static \
          meta/portmap meta/firewall meta/tuning meta/bandwidth

.PHONY: all tools plugins install check check-tree test try bench clean

all: tools plugins

# The trees of out/ and of an installation are alike: bin/ctr-*, libexec/ctr/cni/*.
tools:
	@mkdir -p out/bin
	$(BUILD) -ldflags '$(LDFLAGS)' -o out/bin/ $(TOOLS:%=./cmd/%)

plugins:
	@mkdir -p out/libexec/ctr/cni
	$(BUILD) -ldflags '-s -w' -o out/libexec/ctr/cni/ $(PLUGINS:%=$(CNI)/%)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/ctr/cni
	install -m 755 out/bin/ctr-* $(DESTDIR)$(PREFIX)/bin/
	install -m 755 out/libexec/ctr/cni/* $(DESTDIR)$(PREFIX)/libexec/ctr/cni/
	for s in 1 5 7; do install -d $(DESTDIR)$(PREFIX)/share/man/man$$s; \
	  install -m 644 man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s/; done

# No network, no containers, no root: what an editor can run on save.
# Rules beyond vet and staticcheck: cmd/rules_test.go, each with its reason.
check: check-tree
	mandoc -T lint -W warning man/*.[157]

check-tree:
	@test -z "$$(gofmt -l cmd pkg test bench examples | tee /dev/stderr)"
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# Everything, as root: installs what it needs (apt-get), then unit, contract, command-line and end-to-end tests.
test: all
	sh test/run

try: 
	sh examples/try

bench: all
	sh bench/run

clean:
	rm -rf out

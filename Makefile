# carboy: `make` or `make help` shows what there is.
PREFIX  ?= /usr/local
DESTDIR ?=
export GO ?= $(shell command -v go || echo /usr/local/go/bin/go)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZ    ?= 20s
BIN     := build/bin/carboy
LIBEXEC := build/libexec/carboy
SHIPPED := cmd/carboy/cmd/shipped
UNITS   := carboy@.service carboy-gc.service carboy-gc.timer
UNITDIR := lib/systemd/system
BASHCOMP := share/bash-completion/completions/carboy
ZSHCOMP  := share/zsh/site-functions/_carboy
FISHCOMP := share/fish/vendor_completions.d/carboy.fish
DEPS    := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/carboy-deps
LINT    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
PACKAGE := ./...
GIVE    := @[ -z "$$SUDO_UID" ] || chown -R "$$SUDO_UID:$$SUDO_GID" build

export CGO_ENABLED = 0
export GOFLAGS += -buildvcs=false
export GOTOOLCHAIN = auto
export CARBOY_DEPS = $(DEPS)

.PHONY: help build install uninstall docs deps deps-vm demo test test-vm soak lint fmt bench fuzz clean
help: ## show this
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

build: ## build carboy and its helpers into build/
	$(GO) build -trimpath -ldflags '-s -w -X carboy/runtime/version.Build=$(VERSION)' -o $(BIN) ./cmd/carboy
	$(GO) build -trimpath -ldflags '-s -w -X carboy/runtime/version.Build=$(VERSION)' -o $(LIBEXEC)/ ./cmd/carboy-init ./cmd/carboy-egress ./cmd/carboy-buildkit
	mkdir -p build/share && rm -rf build/share/carboy && cp -r $(SHIPPED) build/share/carboy
	for shell in bash zsh fish; do mkdir -p build/share/completion && $(BIN) completion $$shell >build/share/completion/$$shell || exit 1; done
	$(GO) run ./cmd/carboy/cmd/reference -man build/share/man/man1
	$(GIVE)

install: $(if $(wildcard $(BIN)),,build) ## install below PREFIX (DESTDIR for packages)
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/carboy
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/libexec/carboy $(LIBEXEC)/carboy-init $(LIBEXEC)/carboy-egress $(LIBEXEC)/carboy-buildkit
	install -d -m 0755 $(DESTDIR)$(PREFIX)/share/carboy
	cp -r --no-preserve=all $(SHIPPED)/. $(DESTDIR)$(PREFIX)/share/carboy
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man1 build/share/man/man1/*
	install -D -m 0644 build/share/completion/bash $(DESTDIR)$(PREFIX)/$(BASHCOMP)
	install -D -m 0644 build/share/completion/zsh $(DESTDIR)$(PREFIX)/$(ZSHCOMP)
	install -D -m 0644 build/share/completion/fish $(DESTDIR)$(PREFIX)/$(FISHCOMP)
	install -d -m 0755 $(DESTDIR)$(PREFIX)/$(UNITDIR)
	for unit in $(UNITS); do sed 's|@PREFIX@|$(PREFIX)|' cmd/carboy/cmd/units/$$unit >$(DESTDIR)$(PREFIX)/$(UNITDIR)/$$unit || exit 1; done
	install -d -m 0755 $(DESTDIR)$(PREFIX)/share/carboy/examples/sudoers.d
	sed 's|/usr/local/bin|$(PREFIX)/bin|' examples/sudoers.d/carboy >$(DESTDIR)$(PREFIX)/share/carboy/examples/sudoers.d/carboy

uninstall: ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/carboy
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,$(BASHCOMP) $(ZSHCOMP) $(FISHCOMP) share/man/man1/carboy.1 share/man/man1/carboy-*.1 $(addprefix $(UNITDIR)/,$(UNITS)))
	rm -rf $(DESTDIR)$(PREFIX)/libexec/carboy $(DESTDIR)$(PREFIX)/share/carboy

docs: ## write docs/reference from what the commands say
	$(GO) run ./cmd/carboy/cmd/reference -markdown docs/reference

deps: ## install what bottles need (apt), and what the tests need besides (Go)
	test/deps.sh $(GO) $(DEPS)

demo: build ## run a sealed agent on a private containerd and show what got through (root)
	test/deps.sh
	$(GO) build -trimpath -o build/demo ./test/demo
	$(GIVE)
	build/demo

test: build deps lint ## run every test (root)
	$(GO) test -timeout 5m ./runtime/... ./image/... ./cmd/carboy/... ./cmd/carboy-egress/... ./cmd/carboy-buildkit/...
	$(GO) test -timeout 5m ./cmd/carboy-init ./runtime/invoker ./netns/... -root
	$(GO) test -timeout 28m -p 1 ./test ./test/world -root
	@command -v "$${PIPELOCK:-pipelock}" >/dev/null || echo 'SKIPPED: tests with pipelock, as there is no such binary in PATH, nor $$PIPELOCK'
	@command -v systemd-analyze >/dev/null || echo 'SKIPPED: the check of the units, as there is no systemd-analyze'

deps-vm: ## install qemu (apt), and make the disk of the tests' virtual machine
	test/vm/deps.sh $(DEPS)

test-vm: deps-vm ## run the tests that need a virtual machine: units, reboots, power cuts (root)
	$(GO) test -timeout 30m ./test/vm -vm

soak: build deps ## kill and start hundreds of times, for a night (root)
	$(GO) test -timeout 3h -p 1 ./test -root -soak -run 'TestKilled|TestCycles|TestMany'

lint: ## check style, imports and errors
	$(GO) run $(LINT) run $(PACKAGE)

fmt: ## format
	$(GO) run $(LINT) fmt

bench: build deps ## time a bring-up, beside Docker's (root)
	test/docker.sh $(DEPS)
	$(GO) test -timeout 20m ./test -root -run '^$$' -bench . -benchtime 20x

fuzz: ## fuzz the matching of hosts and the reading of manifests, each for FUZZ
	$(GO) test ./runtime/proxy/policy -fuzz FuzzMatch -fuzztime $(FUZZ)
	$(GO) test ./runtime/manifest -fuzz FuzzParseAgent -fuzztime $(FUZZ)
	$(GO) test ./runtime/manifest -fuzz FuzzParseBottle -fuzztime $(FUZZ)

clean: ## remove build/
	rm -rf build

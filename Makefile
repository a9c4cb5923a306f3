# weft. `make help` lists the targets; each line after ## is its help.
VERSION ?= $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo unknown)
export CGO_ENABLED = 0
# With -trimpath everywhere, what the programs are made of is compiled once for them and for their tests.
export GOFLAGS = -buildvcs=false -trimpath
GO = go
FUZZ = 10m

.PHONY: help build demo demo-down test test-kernels check generate fuzz diff-hour truth chaos bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

build: ## build bin/weft and bin/weftd; needs only Go
	@mkdir -p bin
	$(GO) build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/weft ./cmd/weftd

demo: build ## bring up two hosts and two tenants with the same addresses, and prove who can talk
	@$(GO) run ./tools/needs demo
	bin/weftd lab demo -f examples/demo-lab.yaml

demo-down: build ## remove everything that demo made
	bin/weftd lab down

# Many tests wait for the kernel, for etcd and for each other more than they compute: four packages at a time keep
# two processors busy, the longest first. What times packets or measures has the machine for itself.
TOGETHER = 4
LONGEST = ./internal/lab ./internal/datapath ./internal/agent ./test/packet ./test/kernels ./test/acceptance
ALONE = ./test/bandwidth,./test/chaos

test: ## everything that must pass; installs what it needs; root; about 12 minutes on 2 cores
	@test "$$(id -u)" = 0 || { echo "make test makes network namespaces and loads eBPF: run it as root" >&2; exit 1; }
	@$(GO) run ./tools/needs test
	@$(MAKE) -s --no-print-directory check build
	@$(GO) run ./tools/testsum -p $(TOGETHER) -alone $(ALONE) -fuzz 5s $(LONGEST) ./...

test-kernels: ## boot Debian's 6.12 and newest kernel in emulation, run the switch in them; needs Debian's apt
	@$(GO) run ./tools/needs test-kernels
	WEFT_KERNELS=1 $(GO) test -count=1 -timeout 100m -v -run '^TestKernels$$' ./test/kernels

check: ## formatting, vet, import law, names, words, generated files
	@$(GO) run ./tools/needs check
	@$(GO) run ./tools/checktree
	@$(GO) run ./tools/checkimports
	@$(GO) vet ./...
	@$(GO) run ./tools/checkgenerated

generate: ## write everything that is generated; needs clang and protoc
	@$(GO) run ./tools/needs generate
	$(GO) run ./tools/genschema
	@mkdir -p bin/protoc
	$(GO) build -o bin/protoc/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
	PATH=$(CURDIR)/bin/protoc:$$PATH protoc -I api --go_out=. --go_opt=module=github.com/weft-sdn/weft \
		--connect-go_out=. --connect-go_opt=module=github.com/weft-sdn/weft $$(cd api && find . -name '*.proto' | sed 's,^\./,,' | sort)
	$(GO) generate ./internal/...

fuzz: ## fuzz every target for FUZZ (10m) each
	@$(GO) run ./tools/testsum -only-fuzz -fuzz $(FUZZ) ./...

diff-hour: ## an hour of random packets through the loaded program and the oracle
	WEFT_DIFF_TIME=1h $(GO) test -count=1 -timeout 90m -v -run '^TestDifferential$$' ./test/packet/...

TRUTH = 10000
truth: ## try TRUTH (10000) random policies against what real packets do
	@$(GO) run ./tools/needs test
	WEFT_TRUTH_CASES=$(TRUTH) $(GO) test -count=1 -timeout 12h -v ./test/truth

CHAOS = 10m
chaos: ## kill everything but the kernel in random order for CHAOS (10m), and lose no packet
	@$(GO) run ./tools/needs test
	WEFT_CHAOS_TIME=$(CHAOS) $(GO) test -count=1 -timeout 12h -v -run '^TestLong$$' ./test/chaos

BENCH =
bench: ## measure as docs/design/benchmarks.md says, and print the tables; BENCH="-into docs/design/benchmarks.md" puts them there
	@$(GO) run ./tools/needs bench
	$(GO) run ./test/bench $(BENCH)

clean: ## remove what build and generate leave behind
	rm -rf bin

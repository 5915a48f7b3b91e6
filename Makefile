# `make` alone lists what there is to make: the text after ## of each target.

# Encryption is mautrix's, with its Olm in pure Go. The tag is set here and nowhere else; everything builds without it too.
TAGS ?= goolm
# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 10s
STATICCHECK_VERSION := v0.8.2

GO ?= go
STATICCHECK := bin/staticcheck-$(STATICCHECK_VERSION)/staticcheck
# The race detector needs cgo, and cgo a C compiler.
RACE := $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $$($(GO) env CC | cut -d' ' -f1) >/dev/null && echo -race)

.DEFAULT_GOAL := help
.PHONY: help build demo test e2e bench losses sim soak soak-hour mutants lint readme fuzz modules clean

help: ## list the targets (default)
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: modules ## the IRC bridge, as bin/trestle-irc
	$(GO) build -tags '$(TAGS)' -o bin/trestle-irc ./example-ircbridge

demo: modules ## a homeserver, an IRC server and the bridge in conversation; ONCE=1 ends after the transcript
	$(GO) build -tags '$(TAGS)' -o bin/demo ./example-ircbridge/demo
	./bin/demo $(if $(filter-out 0,$(ONCE)),-once)

test: modules ## every test that needs no service, with the race detector where there is a C compiler
	@echo "tests run $(if $(RACE),with the race detector,without the race detector: that needs cgo and a C compiler)"
	$(GO) test -tags '$(TAGS)' $(RACE) -timeout 20m ./...

e2e: modules ## the bridge between a real Synapse and real IRC servers, which e2e/install.sh installs; as root
	e2e/install.sh all
	cd e2e && $(GO) test -tags '$(TAGS)' -count=1 -timeout 45m -v ./...

bench: modules ## the intake beside mautrix-go and the disk, the media proxy beside nginx, encryption beside mautrix-go, and whole journeys, as ratios
	$(GO) run -tags '$(TAGS)' ./bench
	$(GO) run -tags '$(TAGS)' ./bench/crossing

losses: modules ## the sink killed 50 times, its power lost 30 times with each SQLite driver, and that of the IRC bridge 10 times
	TRESTLE_KILLS=50 TRESTLE_POWER_LOSSES=30 $(GO) test -tags '$(TAGS)' -count=1 -timeout 10m -v -run 'KilledUnderLoad|PowerLost' ./bench/sink
	SOAK_LOSSES=10 $(GO) test -tags '$(TAGS)' -count=1 -timeout 10m -v -run 'PowerLost' ./bench/soak

soak: modules ## the IRC bridge killed 1,000 times under load, a quarter of an hour; SOAK_KILLS=50 for a minute
	$(GO) test -tags '$(TAGS),failpoints' -count=1 ./internal/failpoint
	SOAK_KILLS=$(or $(SOAK_KILLS),1000) $(GO) test -tags '$(TAGS)' -count=1 -timeout $(or $(SOAK_TIMEOUT),3h) -v -run 'KilledAgain' ./bench/soak

sim: modules ## 1,000 seeds, of which each drives a whole world in no time; SIM_SEED=17 repeats one
	$(GO) test -c -tags '$(TAGS),failpoints' -o bin/simulation.test ./bench/simulation
ifdef SIM_SEED
	cd bench/simulation && SIM_SEED=$(SIM_SEED) ../../bin/simulation.test -test.v
else
	@# A seed keeps one processor busy, and no more.
	cd bench/simulation; half=$$(( ($(or $(SIM_SEEDS),1000) + 1) / 2 )); \
	SIM_FIRST=1 SIM_SEEDS=$$half ../../bin/simulation.test -test.v >../../bin/simulation.log 2>&1 & first=$$!; \
	SIM_FIRST=$$((half + 1)) SIM_SEEDS=$$half ../../bin/simulation.test; second=$$?; \
	wait $$first; first=$$?; grep -v '^=== RUN\|^    --- PASS' ../../bin/simulation.log; [ $$first -eq 0 ] && [ $$second -eq 0 ]
endif

soak-hour: modules ## the IRC bridge under load for an hour: memory and goroutines stay what they are; SOAK_MINUTES=10 for less
	SOAK_MINUTES=$(or $(SOAK_MINUTES),60) $(GO) test -tags '$(TAGS)' -count=1 -timeout 3h -v -run 'UnderLoadForLong' ./bench/soak

mutants: modules ## guards taken out one by one: a test must notice each; SHORT=1 for five, MUTANTS='doubt MAC' for those whose names have such a word
	$(GO) run ./internal/mutants -tags '$(TAGS),failpoints' $(if $(SHORT),-short) $(MUTANTS)

lint: modules $(STATICCHECK) ## gofmt, go vet and staticcheck over both modules; the shell scripts' syntax
	@echo "gofmt"; files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not formatted as gofmt does:"; echo "$$files"; exit 1; }
	$(GO) vet -tags '$(TAGS)' ./...
	$(GO) vet -tags '$(TAGS),failpoints' ./internal/failpoint ./bench/simulation
	cd e2e && $(GO) vet -tags '$(TAGS)' ./...
	$(STATICCHECK) -tags '$(TAGS)' ./...
	$(STATICCHECK) -tags '$(TAGS),failpoints' ./internal/failpoint ./bench/simulation
	cd e2e && ../$(STATICCHECK) -tags '$(TAGS)' ./...
	bash -n .ci/run
	bash -n e2e/install.sh
	sh -n .ci/retry
	sh -n .ci/requirements
	sh -n .ci/fuzz
	sh -n .ci/failures

readme: ## put docs/embed/main.go into README.md as it is
	@awk '/^<!-- embed:/ { print; print "```go"; while ((getline line < "docs/embed/main.go") > 0) print line; print "```"; inside = 1; next } \
		/^<!-- end -->/ { inside = 0 } !inside' README.md > README.md.new && mv README.md.new README.md

fuzz: modules ## every fuzz target for FUZZTIME (10s); FUZZ=Split only those whose names match
	@FUZZTIME='$(FUZZTIME)' TAGS='$(TAGS)' GO='$(GO)' .ci/fuzz

# Quick, and without the network, once everything is in the module cache.
modules:
	@.ci/retry $(GO) mod download
	@cd e2e && ../.ci/retry $(GO) mod download

$(STATICCHECK):
	GOBIN=$(CURDIR)/$(@D) .ci/retry $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

clean: ## remove what was built, and the demo's and the benchmark's data
	rm -rf bin demo-data bench-data

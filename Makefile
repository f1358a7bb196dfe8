# The door. `cargo xtask` is the workshop.

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
# For instance `--locked` or `--offline`.
CARGO_FLAGS ?=
# For `make demo` and `make demo-check`, for instance ARGS='--mode explicit'.
ARGS ?=
# For `make test`, for instance TESTS='-p tulle-e2e' or TESTS='-p tulle-policy some_test'.
TESTS ?= --workspace

# What the binary is compiled for; `quick` takes a third of the time and runs slower.
PROFILE ?= release

# For `make soak`.
SOAK_SECONDS ?= 1800

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
TULLE := $(TARGET_DIR)/$(PROFILE)/tulle
# What tests and tools are compiled into; `cargo build --profile quick` puts a binary there too.
TOOLS := $(TARGET_DIR)/quick
XTASK := $(TOOLS)/xtask

STAND_IN := $(shell sh scripts/toolchain.sh)
ifneq ($(STAND_IN),)
export RUSTUP_TOOLCHAIN := $(STAND_IN)
endif

.PHONY: help setup build demo demo-check test test-build lint lint-format lint-files lint-bans lint-source lint-clippy check-docs docs fmt bench bench-tools resilience profile count soak suites conformance kubernetes-e2e rustc-version clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## installs what is needed, or says in one line what is missing
	@sh scripts/setup.sh

build: setup ## the binary: target/release/tulle
ifeq ($(PROFILE),release)
	@flags=$$(sh scripts/profile-flags.sh $(TARGET_DIR)) && set -x && \
		RUSTFLAGS="$$RUSTFLAGS $$flags" $(CARGO) build --release --workspace --bin tulle $(CARGO_FLAGS)
else
	$(CARGO) build --profile $(PROFILE) --workspace --bin tulle $(CARGO_FLAGS)
endif

demo: build ## a whole mesh at work; Ctrl-C ends it (ARGS='--mode explicit')
	@$(TULLE) demo $(ARGS)

demo-check: build ## the demo proves its claims, each with the figure seen, and ends
	@$(TULLE) demo --check $(ARGS)

test-build: build
	$(CARGO) test --profile quick --no-run $(TESTS) $(CARGO_FLAGS)

test: build ## all tests, end to end too; in network namespaces where root (TESTS='-p tulle-policy')
	TULLE_BIN=$(TULLE) $(CARGO) test --profile quick --no-fail-fast $(TESTS) $(CARGO_FLAGS)
	@$(MAKE) check-docs

lint: lint-format lint-files lint-bans lint-source lint-clippy ## format, clippy, generated code, directions between crates, what must not be committed

lint-format:
	$(CARGO) fmt --all --check

lint-files:
	sh scripts/check-files.sh

lint-bans:
	sh scripts/check-bans.sh

lint-source:
	$(CARGO) build --profile quick --workspace --bin xtask -q $(CARGO_FLAGS)
	$(XTASK) gen --check
	$(XTASK) lint-directions

# The same profile as the tests': compiled C code and macros are shared.
lint-clippy:
	$(CARGO) clippy --profile quick --workspace --all-targets $(CARGO_FLAGS) -- -D warnings

check-docs: ## do the commands that the documentation shows exist, with those flags?
	@if [ -x $(TULLE) ]; then sh scripts/check-docs.sh $(TULLE); else echo "check-docs: there is no $(TULLE); run: make build" >&2; exit 1; fi

docs: setup ## docs/reasons.md anew, and the crates' documentation in target/doc
	UPDATE_GOLDEN=1 $(CARGO) test --profile quick -q -p tulle-model reasons $(CARGO_FLAGS)
	$(CARGO) doc --profile quick --workspace --no-deps --document-private-items $(CARGO_FLAGS)
	@echo "open $(TARGET_DIR)/doc/tulle/index.html"

bench: build bench-tools ## Tulle beside HAProxy, nginx and Envoy, as ratios (ARGS='--rounds 5 --work h1,pair')
	TULLE_BIN=$(TULLE) BENCH_BIN=$(TOOLS) python3 benches/bench.py $(ARGS)

resilience: build bench-tools ## Tulle and Envoy while endpoints are slow, fail or are asked too much (ARGS='--case overload')
	TULLE_BIN=$(TULLE) BENCH_BIN=$(TOOLS) python3 benches/resilience.py $(ARGS)

bench-tools:
	$(CARGO) build --profile quick --workspace --bin bench-upstream --bin bench-open --bin bench-handshake --bin bench-service $(CARGO_FLAGS)

profile: setup bench-tools ## what `make build` knows of where the binary spends its time, anew
	BENCH_BIN=$(TOOLS) python3 benches/profile.py $(ARGS)

count: ## instructions of hot functions, beside the committed counts (needs valgrind)
	$(CARGO) build --profile quick --workspace --bin bench-instructions $(CARGO_FLAGS)
	python3 benches/instructions/count.py $(TOOLS)/bench-instructions

soak: test-build ## 30 minutes of mixed traffic while everything changes (SOAK_SECONDS=60)
	TULLE_BIN=$(TULLE) SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --profile quick --workspace --test it $(CARGO_FLAGS) -- --ignored --exact soak::mixed_traffic_while_everything_changes --nocapture

suites: build ## h2spec, gRPC interop and Autobahn through the proxy; installs them with go and pip
	TULLE_BIN=$(TULLE) bash scripts/suites/all.sh

conformance: build ## the official Gateway API suite, on KUBECONFIG's cluster or the kit's (ARGS='--profiles GATEWAY-TCP')
	TULLE_BIN=$(or $(TULLE_BIN),$(TULLE)) bash scripts/conformance.sh $(ARGS)

kubernetes-e2e: test-build ## Tulle on Kubernetes, on KUBECONFIG's cluster or the kit's (ARGS='deployed::')
	TULLE_BIN=$(or $(TULLE_BIN),$(TULLE)) CARGO='$(CARGO)' CARGO_FLAGS='$(CARGO_FLAGS)' bash scripts/kubernetes-e2e.sh $(ARGS)

rustc-version:
	@rustc --version --verbose

fmt: ## formats the source
	$(CARGO) fmt --all

clean: ## removes what was built
	$(CARGO) clean

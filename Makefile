# `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Architecture of the release build: x86_64 or aarch64.
ARCH ?= $(shell uname -m)
MUSL := $(ARCH)-unknown-linux-musl
WASM := wasm32-wasip2
# Relative to the workspace, as Cargo takes it.
TARGET := $(or $(CARGO_TARGET_DIR),target)

PLUGINS := $(notdir $(patsubst %/Cargo.toml,%,$(wildcard plugins/*/Cargo.toml)))
GUESTS := $(notdir $(patsubst %/Cargo.toml,%,$(wildcard tests/guests/*/Cargo.toml)))

VERSION := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$$/\1/p' Cargo.toml)
RELEASED := $(TARGET)/$(MUSL)/release

# For another architecture, zig compiles C code and links. Its package has the headers and the C library of each target.
ZIG := ziglang==0.15.2 cargo-zigbuild==0.22.2
ifneq ($(ARCH),$(shell uname -m))
CROSS := setup-cross
CARGO_RELEASE := CARGO_ZIGBUILD_ZIG_PATH=$(abspath $(TARGET))/zig/ziglang/zig $(TARGET)/zig/bin/cargo-zigbuild zigbuild
else
CARGO_RELEASE := cargo build
endif

# Arguments of every native build for tests: one build with one set of features.
NATIVE := --workspace --bins --tests
# Most of them wait more than they compute.
MAX_CONCURRENT_TESTS ?= 4

# Seconds that each target is fuzzed.
SECONDS_EACH ?= 60
CARGO_FUZZ := 0.13.1
CARGO_DENY := 0.18.9
CARGO_CYCLONEDX := 0.5.9
FUZZED := $(notdir $(wildcard tests/fuzz/corpus/*))

.PHONY: docs help setup setup-build setup-demo setup-clusters setup-wasm setup-musl setup-cross consul build image sbom \
	build-debug plugins guests test test-clusters chaos simulate-large fuzz demo demo-clusters bench bench-scale lint words crates deny release fmt clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: setup-wasm setup-musl consul ## Install what is missing: Rust targets, musl-tools, and the servers of the tests
	@tests/setup.sh all

setup-build: setup-musl
	@tests/setup.sh build

setup-demo: setup-wasm
	@tests/setup.sh demo

setup-clusters: setup-wasm ## Install the servers of all real clusters too; starts no system service
	@tests/setup.sh clusters

consul: ## Fetch Debian 11's Consul to target/consul, if a mirror has it; installs nothing
	@tests/consul.sh $(TARGET)/consul

setup-wasm:
	@[ -d "$$(rustc --print sysroot)/lib/rustlib/$(WASM)/lib" ] || rustup target add $(WASM)

setup-musl:
	@[ -d "$$(rustc --print sysroot)/lib/rustlib/$(MUSL)/lib" ] || rustup target add $(MUSL)

setup-cross:
	@[ -x $(TARGET)/zig/bin/cargo-zigbuild ] || python3 -m pip install --quiet --root-user-action ignore --target $(TARGET)/zig $(ZIG)

build: setup-build $(CROSS) ## The static release binaries, at target/release/ochopod and target/release/ochopod-pilot; ARCH=aarch64
	OCHOPOD_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null || true) $(CARGO_RELEASE) --locked --release -p ochopod \
		-p ochopod-pilot-command --bins --target $(MUSL)
ifeq ($(CROSS),)
	@mkdir -p $(TARGET)/release
	@install $(RELEASED)/ochopod $(RELEASED)/ochopod-pilot $(TARGET)/release/
endif

image: build ## A container image of the release binary, at target/ochopod-image-ARCH.tar; FILES="SOURCE:/TARGET …" ARCH=aarch64
	@host/packaging/image.sh ochopod:$(VERSION) $(ARCH) $(TARGET)/ochopod-image-$(ARCH).tar $(RELEASED)/ochopod $(FILES)

sbom: ## Software bills of materials (CycloneDX) of the release binaries, at target/sbom; ARCH=aarch64
	@cargo cyclonedx --version >/dev/null 2>&1 || cargo install --locked cargo-cyclonedx --version $(CARGO_CYCLONEDX)
	@host/packaging/sbom.sh $(MUSL) $(TARGET)/sbom

build-debug: setup ## The debug binary, at target/debug/ochopod
	cargo build --locked $(NATIVE)

plugins: setup-wasm ## Every plugin, at target/plugins/NAME.wasm
	cargo build --locked --profile plugin --target $(WASM) $(PLUGINS:%=-p ochopod-plugin-%)
	@mkdir -p $(TARGET)/plugins
	@for name in $(PLUGINS); do \
		install -m 644 "$(TARGET)/$(WASM)/plugin/$${name//-/_}.wasm" "$(TARGET)/plugins/$$name.wasm"; \
	done

guests: setup-wasm ## The guests that the scenarios need, at target/guests/NAME.wasm
	cargo build --locked --profile plugin --target $(WASM) $(GUESTS:%=-p ochopod-guest-%)
	@mkdir -p $(TARGET)/guests
	@for name in $(GUESTS); do \
		install -m 644 "$(TARGET)/$(WASM)/plugin/$${name//-/_}.wasm" "$(TARGET)/guests/$$name.wasm"; \
	done

test: setup build-debug plugins guests ## Every test
	RUST_LIB_BACKTRACE=0 RUST_TEST_THREADS=$(MAX_CONCURRENT_TESTS) cargo test --locked --workspace

test-clusters: setup-clusters build-debug plugins ## Every plugin of a real cluster, with its real servers
	RUST_LIB_BACKTRACE=0 RUST_TEST_THREADS=$(or $(MAX_CONCURRENT_CLUSTERS),2) cargo test --locked --workspace --test clusters --test more_clusters

chaos: setup build-debug guests ## Inject faults into a cluster on a real ZooKeeper ensemble: SEED=… repeats a run, MINUTES=5
	@SEED=$(SEED) MINUTES=$(MINUTES) SHAPE=$(SHAPE) $(TARGET)/debug/chaos

simulate-large: ## Simulate clusters of PODS=1000 under faults, SEEDS=4
	OCHOPOD_PODS=$(or $(PODS),1000) OCHOPOD_LARGE_SEEDS=$(or $(SEEDS),4) OCHOPOD_FIRST_SEED=$(or $(FIRST),0) \
		cargo test --locked -p ochopod-simulation -- large --nocapture

fuzz: ## Fuzz every parser of external input, SECONDS_EACH=60; needs a nightly toolchain
	@if ! rustc +nightly --version >/dev/null 2>&1; then \
		echo "fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; \
	fi
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz --version $(CARGO_FUZZ)
	cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir $(TARGET)/fuzz --sanitizer none
	@for target in $(FUZZED); do \
		echo "fuzzing $$target for $(SECONDS_EACH) s"; \
		mkdir -p $(TARGET)/fuzz/found/$$target; \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir $(TARGET)/fuzz --sanitizer none $$target \
			$(TARGET)/fuzz/found/$$target tests/fuzz/corpus/$$target -- -dict=tests/fuzz/tokens.dict \
			-max_total_time=$(SECONDS_EACH) -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0; \
	done

demo: setup-demo ## Run the self-contained demo
	@$(MAKE) --no-print-directory plugins PLUGINS=hello
	cargo build --locked -p ochopod
	@tests/demo.sh $(TARGET)/debug/ochopod $(TARGET)/plugins/hello.wasm

demo-clusters: setup-clusters ## Run real clusters: ZooKeeper, PostgreSQL, nginx behind HAProxy, …; STEPS="web haproxy" selects
	@$(MAKE) --no-print-directory plugins
	cargo build --locked -p ochopod
	@tests/demo-clusters.sh $(TARGET)/debug/ochopod $(TARGET)/plugins $(STEPS)

bench: setup build plugins guests ## Figures of the release binary, with ratios to the baseline; BASELINE=write replaces it
	cargo build --locked --release -p ochopod-tests --bin bench
	@BASELINE=$(BASELINE) $(TARGET)/release/bench

bench-scale: setup build plugins ## Figures of large clusters, each pod a process: SIZES=100,400,1000 JOINS=5 PLUGIN=hello
	cargo build --locked --release -p ochopod-tests --bin bench-scale
	@SIZES=$(SIZES) JOINS=$(JOINS) PLUGIN=$(PLUGIN) $(TARGET)/release/bench-scale

docs: ## Write the generated parts of docs/
	UPDATE_DOCS=1 cargo test --locked -p ochopod-settings --test reference

lint: setup words crates ## Check format, clippy, documentation, words, dependencies; CI runs it too
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --target $(WASM) -p ochopod-sdk $(PLUGINS:%=-p ochopod-plugin-%) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --lib
	@cargo update -q --workspace --locked --manifest-path tests/fuzz/Cargo.toml || { echo "lock file of the fuzz targets is outdated:" \
		"cargo update --workspace --manifest-path tests/fuzz/Cargo.toml" >&2; exit 1; }
	@if [ -e wit/released/SHA256SUMS ]; then cd wit/released && sha256sum --quiet -c SHA256SUMS; fi

words: ## Find words that messages, documents and comments must not have
	@tests/words.sh

crates: ## Check each crate alone, and the host without default features
	@for manifest in host/crates/*/Cargo.toml host/Cargo.toml; do \
		echo "checking $$manifest"; \
		cargo check -q --locked --manifest-path $$manifest; \
		cargo check -q --locked --no-default-features --manifest-path $$manifest; \
	done

deny: ## Check licences, bans, sources and advisories of dependencies with cargo-deny
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny --version $(CARGO_DENY)
	cargo deny --log-level error check licenses bans sources
	@cargo deny --log-level error check advisories || { \
		cargo deny fetch >/dev/null 2>&1 && exit 1; \
		echo "advisory database not reachable: advisories not checked" >&2; }

release: ## Tag and package the version in Cargo.toml, as docs/releasing.md describes
	@host/packaging/release.sh $(TARGET)

fmt: ## Format everything
	cargo fmt

clean: ## Remove all build results
	cargo clean

# `make help` lists what can be made.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

MUSL := $(shell uname -m)-unknown-linux-musl
WASM := wasm32-wasip2
# Relative to the workspace, as Cargo takes it.
TARGET := $(or $(CARGO_TARGET_DIR),target)

PLUGINS := $(notdir $(patsubst %/Cargo.toml,%,$(wildcard plugins/*/Cargo.toml)))
GUESTS := $(notdir $(patsubst %/Cargo.toml,%,$(wildcard tests/guests/*/Cargo.toml)))

# How the tests are built is how everything native is built for them: once, with one set of features.
NATIVE := --workspace --bins --tests
# Most of them wait more than they compute.
TESTS_AT_ONCE ?= 4

# How long each target is fuzzed.
SECONDS_EACH ?= 60
CARGO_FUZZ := 0.13.1
FUZZED := $(notdir $(wildcard tests/fuzz/corpus/*))

.PHONY: help setup setup-rust build build-debug plugins guests test chaos fuzz demo bench lint fmt clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: setup-rust ## Install what is missing: Rust targets, protoc, musl-tools, and what tests run against
	@missing=; \
	[ -e /usr/share/java/zookeeper.jar ] || missing+=" zookeeper"; \
	command -v java >/dev/null || missing+=" default-jre-headless"; \
	command -v redis-server >/dev/null || missing+=" redis-server"; \
	command -v redis-cli >/dev/null || missing+=" redis-tools"; \
	command -v musl-gcc >/dev/null || missing+=" musl-tools"; \
	command -v setpriv >/dev/null || missing+=" util-linux"; \
	command -v curl >/dev/null || missing+=" curl"; \
	command -v protoc >/dev/null || missing+=" protobuf-compiler"; \
	[ -e /usr/include/google/protobuf/descriptor.proto ] || missing+=" libprotobuf-dev"; \
	command -v etcd >/dev/null || missing+=" etcd-server"; \
	command -v prometheus >/dev/null || missing+=" prometheus"; \
	[ -x /usr/sbin/nginx ] || missing+=" nginx-light"; \
	[ -n "$$missing" ] || exit 0; \
	as=; [ "$$(id -u)" = 0 ] || as="sudo -n"; \
	if ! command -v apt-get >/dev/null || ! $$as true 2>/dev/null; then \
		echo "missing here:$$missing; please install the Debian packages of these names, or what they are called elsewhere" >&2; \
		exit 1; \
	fi; \
	echo "installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	{ $$as apt-get -qq update && $$as env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install -y --no-install-recommends $$missing; } >/tmp/ochopod-setup.$$$$ 2>&1 \
		|| { cat /tmp/ochopod-setup.$$$$ >&2; rm -f /tmp/ochopod-setup.$$$$; exit 1; }; \
	rm -f /tmp/ochopod-setup.$$$$

setup-rust:
	@libraries=$$(rustc --print sysroot)/lib/rustlib; \
	for target in $(WASM) $(MUSL); do \
		[ -d "$$libraries/$$target/lib" ] || rustup target add "$$target"; \
	done

build: setup ## The static release binary, at target/release/ochopod
	OCHOPOD_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null || true) cargo build --locked --release -p ochopod --target $(MUSL)
	@mkdir -p $(TARGET)/release
	@install $(TARGET)/$(MUSL)/release/ochopod $(TARGET)/release/ochopod

build-debug: setup ## The debug binary, at target/debug/ochopod
	cargo build --locked $(NATIVE)

plugins: setup-rust ## Every plugin, at target/plugins/NAME.wasm
	cargo build --locked --profile plugin --target $(WASM) $(PLUGINS:%=-p ochopod-plugin-%)
	@mkdir -p $(TARGET)/plugins
	@for name in $(PLUGINS); do \
		install -m 644 "$(TARGET)/$(WASM)/plugin/$${name//-/_}.wasm" "$(TARGET)/plugins/$$name.wasm"; \
	done

guests: setup-rust ## The guests that the scenarios need, at target/guests/NAME.wasm
	cargo build --locked --profile plugin --target $(WASM) $(GUESTS:%=-p ochopod-guest-%)
	@mkdir -p $(TARGET)/guests
	@for name in $(GUESTS); do \
		install -m 644 "$(TARGET)/$(WASM)/plugin/$${name//-/_}.wasm" "$(TARGET)/guests/$$name.wasm"; \
	done

test: setup build-debug plugins guests ## Every test
	RUST_LIB_BACKTRACE=0 RUST_TEST_THREADS=$(TESTS_AT_ONCE) cargo test --locked --workspace

chaos: setup build-debug guests ## Storms of faults over a real ensemble: SEED=… repeats one, MINUTES=… (5) is how long
	@SEED=$(SEED) MINUTES=$(MINUTES) SHAPE=$(SHAPE) $(TARGET)/debug/chaos

fuzz: ## Hostile bytes for everything that reads some, SECONDS_EACH=60 for each; needs a nightly toolchain
	@if ! rustc +nightly --version >/dev/null 2>&1; then \
		echo "fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; \
	fi
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz --version $(CARGO_FUZZ)
	cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir $(TARGET)/fuzz --sanitizer none
	@for target in $(FUZZED); do \
		echo "fuzzing $$target for $(SECONDS_EACH) s"; \
		mkdir -p $(TARGET)/fuzz/found/$$target; \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir $(TARGET)/fuzz --sanitizer none $$target \
			$(TARGET)/fuzz/found/$$target tests/fuzz/corpus/$$target -- -dict=tests/fuzz/words.dict \
			-max_total_time=$(SECONDS_EACH) -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0; \
	done

demo: setup plugins ## A tour that ends by itself
	cargo build --locked -p ochopod
	@tests/demo.sh $(TARGET)/debug/ochopod $(TARGET)/plugins/hello.wasm

bench: setup build plugins guests ## Figures of the release binary, beside those of the Python SDK
	cargo build --locked --release -p ochopod-tests --bin bench
	@$(TARGET)/release/bench

lint: setup ## What CI also checks: format, clippy, documentation, dependencies
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --target $(WASM) -p ochopod-sdk $(PLUGINS:%=-p ochopod-plugin-%) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --lib
	@cargo update -q --workspace --locked --manifest-path tests/fuzz/Cargo.toml || { echo "the fuzzer's lock file is behind:" \
		"cargo update --workspace --manifest-path tests/fuzz/Cargo.toml" >&2; exit 1; }
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --log-level error check; \
	else echo "cargo-deny is not installed: licences and advisories are not checked"; fi

fmt: ## Format everything
	cargo fmt

clean: ## Remove everything that was made
	cargo clean

# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
# Needs: cargo (rustup.rs), a C compiler for linking, CPython 3.9 or newer with venv. Everything else is set up here.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
# Asked of cargo, so that CARGO_TARGET_DIR and cargo's own configuration hold here too.
TARGET_DIR = $(shell cargo metadata --no-deps --offline --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
BINARY = $(TARGET_DIR)/debug/ciphermq
# The Python extension is built by maturin; everything else in one go, with one set of features, so that clippy, tests and
# the program under test share what is compiled.
RUST := --workspace --exclude ciphermq-py
FUZZ_SECONDS ?= 60
ROUNDS ?= 1000
SAMPLES ?= 100000
RSA_SECONDS ?= 900
SUITES ?= 1
FEATURES ?=
ENVELOPES ?= 1000

say = @printf '\n\033[1m== %s\033[0m\n' '$(1)'

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

# --- to see it work

# The dev profile: with its optimised dependencies it is quick enough, builds in less than half the time of a release, and
# `make test` uses the same files.
.PHONY: demo
demo: bindings ## encrypted messages from Python through the broker to Python
	$(call say,broker)
	cargo build --quiet -p ciphermq-server
	$(call say,demo)
	$(VENV_PYTHON) -u examples/demo.py --ciphermq $(BINARY)

# --- to see that it is right

.PHONY: test
test: check-format check-lints check-licences test-rust check-docs check-protocol test-python ## everything CI runs
	@printf '\nEverything passed.\n'

.PHONY: check-format
check-format: need-cargo
	$(call say,format)
	cargo fmt --all --check

.PHONY: check-lints
check-lints: need-cargo
	$(call say,clippy)
	cargo clippy --workspace --all-targets -- -D warnings

# Without the advisories, which need the network: those are in `make audit`.
.PHONY: check-licences
check-licences: need-cargo
	$(call say,licences; banned crates; where crates come from)
	@if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; \
	else echo 'cargo-deny is not installed: not checked'; fi

# Many sockets are open at once in the tests of limits; they say so when the system does not let them.
.PHONY: test-rust
test-rust: need-cargo
	$(call say,Rust: unit; property; conversation and documentation tests; fuzz corpora)
	cargo build $(RUST) --all-targets
	ulimit -n "$$(ulimit -Hn)"; CIPHERMQ_BIN=$(BINARY) cargo test $(RUST)
	$(call say,the same conversations with a broker on disk)
	CIPHERMQ_TEST_STORE=disk CIPHERMQ_BIN=$(BINARY) cargo test $(RUST) \
		--test lifecycle --test legacy --test concurrency --test docs_examples

.PHONY: check-docs
check-docs: need-cargo
	$(call say,documentation builds without warnings)
	RUSTDOCFLAGS="-D warnings" cargo doc $(RUST) --no-deps --quiet

# The protocol crate is bytes and values: no runtime, no clock, any target.
.PHONY: check-protocol
check-protocol: need-cargo
	$(call say,the protocol crate is pure)
	@if cargo tree -p ciphermq-protocol -e normal --prefix none | grep -E '^(tokio|mio|socket2|rustix|libc) '; then \
		echo 'ciphermq-protocol must not depend on these'; exit 1; \
	else echo 'no runtime in its tree'; fi
	@if [ -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; then \
		cargo check --quiet -p ciphermq-protocol --target wasm32-unknown-unknown && echo 'builds for wasm32'; \
	else echo 'wasm32-unknown-unknown is not installed: not checked'; fi

.PHONY: test-python
test-python: bindings
	$(call say,Python: package; interoperability; clients of 0.2.0 and 1.0.0; examples)
	cargo build --quiet $(RUST) --all-targets
	cd py-bindings && CIPHERMQ_BIN=$(BINARY) ../$(VENV_PYTHON) -m pytest
	CIPHERMQ_BIN=$(BINARY) $(VENV_PYTHON) -m pytest tests/python tests/interop
	$(call say,Python: types)
	cd py-bindings && ../$(VENV_PYTHON) -m mypy python/ciphermq
	$(VENV_PYTHON) -m mypy.stubtest ciphermq
	$(VENV_PYTHON) -m mypy --ignore-missing-imports --check-untyped-defs examples/sealed_*.py

.PHONY: audit
audit: need-cargo ## licences, duplicates, known vulnerabilities (needs the network and cargo-deny)
	@command -v cargo-deny >/dev/null || { echo 'make audit needs cargo-deny: cargo install --locked cargo-deny'; exit 1; }
	cargo deny check

# Without a nightly compiler the usual one is told to take nightly's options.
.PHONY: fuzz
fuzz: need-cargo ## every fuzz target for FUZZ_SECONDS (60) seconds (needs cargo-fuzz and a C++ compiler)
	@command -v cargo-fuzz >/dev/null || { echo 'make fuzz needs cargo-fuzz: cargo install --locked cargo-fuzz'; exit 1; }
	if cargo +nightly --version >/dev/null 2>&1; then fuzz='cargo +nightly fuzz'; else fuzz='cargo fuzz'; export RUSTC_BOOTSTRAP=1; fi; \
	for target in $$($$fuzz list); do \
		$$fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=60; \
	done

# What `make test` does in 30 rounds. A round is under a second; CIPHERMQ_SEED=<n> repeats the choices of a run.
.PHONY: torture
torture: need-cargo ## kill -9 under load, ROUNDS (1000) times, and check what is left
	cargo build --release -p ciphermq-server --bin ciphermq
	CIPHERMQ_BIN=$(TARGET_DIR)/release/ciphermq CIPHERMQ_ROUNDS=$(ROUNDS) \
		cargo test --release -p system-tests --test kill kill_9_at_any_moment -- --nocapture

# Not part of `make test`: AWS-LC is a library in C to be built first.
.PHONY: test-aws-lc
test-aws-lc: need-cargo ## the tests of the client with RSA by AWS-LC (needs a C compiler)
	cargo clippy -p cipher-client --all-targets --features aws-lc -- -D warnings
	cargo test -p cipher-client --features aws-lc

# Exit code 1: a difference found; 2: no statement, the machine is too busy. CIPHERMQ_SEED=<n> repeats the order of a run.
.PHONY: timing
timing: need-cargo ## whether the time of an opening tells why it failed (SUITES="1 2r 2x 2pq", FEATURES=aws-lc, SAMPLES=100000, RSA_SECONDS=900, ENVELOPES=1000)
	cargo build --release -p cipher-client --example timing --features "$(FEATURES)"
	SAMPLES=$(SAMPLES) RSA_SECONDS=$(RSA_SECONDS) ENVELOPES=$(ENVELOPES) $(TARGET_DIR)/release/examples/timing $(SUITES)

.PHONY: bench
bench: need-cargo ## the figures of the README
	cargo run --release -p ciphermq-server --bin ciphermq -- bench

.PHONY: compare
compare: need-cargo ## other brokers beside ours; bench/README.md says how to install them (COMPARE="--only redis,ciphermq")
	cargo build --release -p ciphermq-server --bin ciphermq
	cargo run --release --locked --manifest-path bench/compare/Cargo.toml -- --ciphermq $(TARGET_DIR)/release/ciphermq $(COMPARE)

# --- what these need

.PHONY: venv
venv: $(VENV)/installed ## .venv with the tools for Python

$(VENV)/installed: tests/python/requirements.txt | need-python
	$(call say,virtual environment)
	[ -x $(VENV_PYTHON) ] || $(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	touch $@

.PHONY: bindings
bindings: need-cargo $(VENV)/installed
	$(call say,Python bindings)
	VIRTUAL_ENV=$(abspath $(VENV)) $(VENV)/bin/maturin develop --quiet -m py-bindings/Cargo.toml

.PHONY: need-cargo
need-cargo:
	@command -v cargo >/dev/null || { echo 'Rust is missing: install it from https://rustup.rs (version 1.89 or newer)'; exit 1; }
	@command -v cc >/dev/null || { echo 'A C compiler is missing, Rust links with it: apt-get install gcc libc6-dev'; exit 1; }

.PHONY: need-python
need-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null \
		|| { echo 'CPython 3.9 or newer is missing: install it, or name it: make PYTHON=/path/to/python3 ...'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo 'The Python module venv is missing: apt-get install python3-venv'; exit 1; }

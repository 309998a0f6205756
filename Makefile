# `make` lists the targets. Every target does the set-up that it needs; a completed set-up takes under a second.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build wheel install demo test lint doc edges clean

# rustup installs cargo there, but only new shells have it on their PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin
PYTHON ?= python3
PREFIX ?= /usr/local
SHARE = $(DESTDIR)$(PREFIX)/share
SETUP := $(PYTHON) scripts/setup/libtorch.py
# CI builds exactly the versions in Cargo.lock.
LOCKED := $(if $(CI),--locked)

# RUSTFLAGS in the environment replaces the flags of .cargo/config.toml, and with them the path of libtorch.
ifdef RUSTFLAGS
CARGO = RUSTFLAGS="$(RUSTFLAGS) $$($(SETUP) --rustflags)" cargo
else
CARGO = cargo
endif

help: ## This list
	@printf 'tokengrid: images to 18-bit token grids, once\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@printf '\nSettings, CUDA, offline use: docs/src/install.md\n'

setup: ## Provide libtorch and what else a build needs (once; every target below does it)
	@command -v $(PYTHON) >/dev/null || { echo 'Python 3 is needed: sudo apt-get install python3' >&2; exit 1; }
	@command -v cargo >/dev/null || { echo 'Rust is needed: https://rustup.rs' >&2; exit 1; }
	@$(SETUP)

build: setup ## Release build: target/release/tokengrid
	@$(CARGO) build --release $(LOCKED)
	@echo 'Built target/release/tokengrid. It runs from any folder; try: target/release/tokengrid --help'

wheel: build ## Python packages: dist/tokengrid-*.whl, dist/tokengrid_torch-*.whl, source distribution
	@$(PYTHON) -B scripts/wheel.py $(LOCKED)

install: build ## Programs, completions and manual pages below PREFIX (default /usr/local)
	@install -d '$(DESTDIR)$(PREFIX)/bin' '$(SHARE)/man/man1' '$(SHARE)/bash-completion/completions' \
	    '$(SHARE)/zsh/site-functions' '$(SHARE)/fish/vendor_completions.d'
	@install -m 755 target/release/tokengrid target/release/tokengrid-torch '$(DESTDIR)$(PREFIX)/bin'
	@target/release/tokengrid completions bash >'$(SHARE)/bash-completion/completions/tokengrid'
	@target/release/tokengrid completions zsh >'$(SHARE)/zsh/site-functions/_tokengrid'
	@target/release/tokengrid completions fish >'$(SHARE)/fish/vendor_completions.d/tokengrid.fish'
	@target/release/tokengrid manuals '$(SHARE)/man/man1'
	@echo 'Installed below $(DESTDIR)$(PREFIX)'

demo: build ## The whole pipeline on bundled photographs; results in demo/
	@target/release/tokengrid demo

test: setup ## All tests
	@$(PYTHON) -B -m unittest discover --start-directory scripts/setup --buffer
	@$(PYTHON) -B -m unittest discover --start-directory scripts/gpu --buffer
	@CARGO='$(CARGO)' LOCKED='$(LOCKED)' bash scripts/setup/run_tests.sh

lint: setup ## Formatting and clippy, with and without libtorch
	cargo fmt --all --check
	@$(CARGO) clippy --release --workspace --all-targets $(LOCKED) -- -D warnings
	@$(CARGO) clippy --release --no-default-features --all-targets $(LOCKED) -- -D warnings

doc: setup ## API documentation: target/doc; whether the book's list of public items is up to date
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --workspace --no-deps $(LOCKED)
	@$(PYTHON) -B scripts/surface.py --check

edges: ## Check which crate may depend on which, and which must do without libtorch
	@$(PYTHON) -B scripts/setup/edges.py

clean: ## Remove build outputs, dist/ and demo/ (libtorch stays in the cache folder)
	cargo clean
	rm -rf demo dist

# Front door.  'make help' says what there is.
# SPDX-License-Identifier: GPL-2.0-or-later

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

prefix ?= /usr/local

# Programs of the trees that the tests run
UNIT_TARGETS = migration-unit-tests
UPSTREAM_UNIT = tests/unit/test-xbzrle tests/unit/test-vmstate \
                tests/unit/test-yank tests/unit/test-io-channel-socket \
                tests/unit/test-bufferiszero
UPSTREAM_QTEST = tests/qtest/migration-test

##@ Use

.PHONY: demo
demo: ferry ## build, then live-migrate a Linux guest and watch it (MIG="mem=1024 rate=4000 ...")
	@scripts/demo $(MIG)

.PHONY: install
install: ferry install-migtop ## install the emulator as $(DESTDIR)$(prefix)/bin/qemu-system-x86_64-ferry
	@install -D -m 755 build/ferry/qemu-system-x86_64 \
	    $(DESTDIR)$(prefix)/bin/qemu-system-x86_64-ferry

# Exactly what migtop imports; tests/python/test_install.py compares
MIGTOP_MODULES = __init__ errors qmp report screen track view

.PHONY: install-migtop
install-migtop:
	@install -D -m 755 scripts/migtop $(DESTDIR)$(prefix)/share/ferry/scripts/migtop
	@mkdir -p $(DESTDIR)$(prefix)/share/ferry/python/ferry $(DESTDIR)$(prefix)/bin
	@install -m 644 $(MIGTOP_MODULES:%=python/ferry/%.py) \
	    $(DESTDIR)$(prefix)/share/ferry/python/ferry/
	@ln -sf ../share/ferry/scripts/migtop $(DESTDIR)$(prefix)/bin/migtop

##@ Build

.PHONY: deps
deps: ## install the Debian packages that are missing
	@base/deps

.PHONY: fetch
fetch: deps ## fetch and unpack the base (QEMU_SRC=/path uses a tree or tarball of yours)
	@base/fetch

.PHONY: assemble
assemble: fetch
	@base/assemble

.PHONY: ferry
ferry: assemble ## build QEMU with the overlay: build/ferry/qemu-system-x86_64
	@base/build ferry

.PHONY: pristine
pristine: fetch ## build the base alone: build/pristine/qemu-system-x86_64
	@base/build pristine

.PHONY: status
status: fetch ## list what is owned, replaced, patched and carried
	@base/assemble --status

##@ Test

.PHONY: check
check: test-programs pristine test-tools ## run every test
	@tests/run check

.PHONY: check-quick
check-quick: quick-programs ## unit tests and one migration of a Linux guest
	@tests/run quick

.PHONY: check-full
check-full: test-programs pristine test-tools ## the same with all of the base's migration-test and more of ours
	@if command -v clang >/dev/null; then base/build tsan; fi
	@tests/run full

.PHONY: check-asan check-tsan
check-asan: assemble ## unit tests under the address and undefined-behaviour sanitizers
	@base/build asan $(UNIT_TARGETS) $(UPSTREAM_UNIT)
	@tests/run asan
check-tsan: assemble ## unit tests under the thread sanitizer
	@base/build tsan $(UNIT_TARGETS)
	@tests/run tsan

.PHONY: check-cross
check-cross: assemble ## unit tests for hosts of 32 bits and big-endian ones; compile for Windows
	@tests/run cross

.PHONY: check-model
check-model: deps ## the models of protocols, by spin
	@tests/run model

.PHONY: quick-programs
quick-programs: assemble
	@base/build ferry qemu-system-x86_64 $(UNIT_TARGETS) $(UPSTREAM_UNIT)

.PHONY: test-programs
test-programs: assemble
	@base/build ferry qemu-system-x86_64 $(UNIT_TARGETS) $(UPSTREAM_UNIT) $(UPSTREAM_QTEST)

.PHONY: test-tools
test-tools: fetch
	@base/build tools

.PHONY: tidy
tidy: ## style, direction of includes and calls, names that must not be there
	@scripts/tidy

.PHONY: bench
bench: ferry pristine ## measure ferry against pristine (BENCH="--list" for the cases)
	@bench/bench $(BENCH)

##@ Share

.PHONY: series
series: fetch ## write the patch series to build/series and check that it applies
	@scripts/series

.PHONY: clean
clean: ## remove what was built, keep what was fetched
	@rm -rf build/tree build/ferry build/pristine build/tools build/released build/asan build/tsan build/guest build/bench build/series build/check

.PHONY: distclean
distclean: ## remove everything that is not in the repository
	@rm -rf build

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } \
	    /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

# SPDX-License-Identifier: GPL-2.0
#
# Everything these targets make lies below .build/ (and what apt installs). `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BUILD := $(CURDIR)/.build
VENV := $(BUILD)/venv
PYTHON := $(VENV)/bin/python
SYSTEM_PYTHON ?= /usr/bin/python3
STAMPS := $(BUILD)/stamps
PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check

# Which guest kernels of guest/kernels.yaml (KERNEL=6.1 takes one), and which tests or further pytest arguments
# (TESTS=...). The list is asked in recipes: it needs the Python environment.
KERNEL ?= $(shell $(GUEST) kernels test)
INSTALLED = $(shell $(GUEST) kernels test --installed)
NEWEST = $(lastword $(INSTALLED))
TESTS ?= tests/kernel
# All of them are worth a second guest, for a processor that would be idle in the end.
SHARED_OUT = $(if $(filter-out tests/kernel,$(TESTS)),,--guests 2)
TIMEOUT ?= 4800
# When `make test-kernel` begins no further file of tests, in seconds since the epoch; it names those that are left.
UNTIL ?=

# Keep what tools leave behind out of the source directories.
export PYTHONPYCACHEPREFIX := $(BUILD)/cache/python
export HYPOTHESIS_STORAGE_DIRECTORY := $(BUILD)/cache/hypothesis
unexport PYTHONPATH PYTHONHOME

GUEST = $(PYTHON) -m guest
# in a guest, where there is no cache to keep, and plugins take long to be imported
PYTEST = python -m pytest -p no:cacheprovider -p no:xdist -p no:hypothesispytest
LINTED = $(wildcard proto ctl guest tests installer docs/examples)
SCRIPTS = .ci/run guest/virtiofsd $(wildcard guest/*.sh docs/examples/monitor)

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } \
	     /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	     /^[a-z][a-z -]*:.*## / { printf "  %-19s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Try it (in a guest: nothing reaches your machine)

.PHONY: demo
demo: KERNEL = $(INSTALLED)
demo: module bytecode ## trace packets through rules of every back end, swap programs under traffic
	@$(GUEST) run --kernel $(NEWEST) --module --timeout $(TIMEOUT) -- python -m tests.demo.demo

.PHONY: fleet-demo
fleet-demo: KERNEL = $(INSTALLED)
fleet-demo: module bytecode ## one story across hosts, a roll-out in waves, a hub that is killed: namespaces play the hosts
	@$(GUEST) run --kernel $(NEWEST) --module --timeout $(TIMEOUT) -- python -m tests.demo.fleet_demo

.PHONY: shell
shell: KERNEL = $(INSTALLED)
shell: module bytecode ## an interactive guest with the module loaded and ipttctl on the PATH (KERNEL=6.1)
	@$(GUEST) shell --kernel $(lastword $(KERNEL)) --module

##@ Test

.PHONY: test
test: check test-unit test-kernel ## static checks, unit tests here, kernel tests dealt out among guests of three kernels

# Without a path pytest takes the testpaths of pyproject.toml. Many tests wait for servers: more run than there are
# processors.
.PHONY: test-unit
test-unit: setup ## tests that need no kernel module
	@$(PYTHON) -m pytest --dist worksteal -n "$$(($$(nproc) < 4 ? 2 * $$(nproc) : 8))" -o cache_dir=$(BUILD)/cache/pytest

.PHONY: test-kernel
test-kernel: suites module ynl tests-bytecode ## tests inside guests, side by side (KERNEL=6.12 TESTS="tests/kernel/test_x.py -k y")
	@$(GUEST) run $(if $(filter file,$(origin KERNEL)),--target test,$(KERNEL:%=--kernel %)) $(SHARED_OUT) $(UNTIL:%=--until %) \
		--timeout $(TIMEOUT) -- $(PYTEST) $(TESTS)

# The long runs: more kernels, debug kernels, the storm, measurements.
include tests/long-runs.mk

##@ Build

.PHONY: setup
setup: $(STAMPS)/project ## packages from apt and the Python environment, where missing

.PHONY: module
module: setup ## the kernel module, and those of the tests, for every guest kernel
	@$(GUEST) releases $(KERNEL) $(NEWEST) | while read -r release; do \
		guest/build-module.sh kmod_netlink "$(BUILD)/kmod/$$release" "$$release" </dev/null; \
		guest/build-module.sh tests/kernel/modules "$(BUILD)/kmod-test/$$release" \
			"$$release" </dev/null; \
	done

# Not in the guests, where unpacking takes minutes; they find it here.
.PHONY: ynl
ynl: setup ## the kernel's own netlink client as .build/ynl/ynl, with our spec (docs/protocol.md)
	@$(PYTHON) -m tests.ynl

# Guests find all Python that they import compiled: emulated, it would take them minutes. What does not compile is
# another Python's.
.PHONY: bytecode
bytecode: setup
	@$(PYTHON) -m compileall -qq -j 0 proto ctl guest tests docs/examples
	@$(PYTHON) -m compileall -qq -j 0 -x '/(mypy|mypyc|pip|ruff|tests?)/' $(VENV)/lib \
		"$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" /usr/lib/python3/dist-packages || :

# pytest compiles tests in its own way.
.PHONY: tests-bytecode
tests-bytecode: bytecode
	@$(PYTHON) -m pytest --quiet -p no:cacheprovider --collect-only tests/kernel >$(BUILD)/collected || \
		{ cat $(BUILD)/collected >&2; exit 1; }

.PHONY: generate
generate: setup ## the C header and the YNL spec from the protocol's definition, and owners as JSON
	@$(PYTHON) -m ipttproto.generate
	@$(PYTHON) -m ipttctl.rules.generate

.PHONY: golden
golden: KERNEL = $(INSTALLED)
golden: module bytecode ## record the messages of this version of the protocol, in a guest (docs/protocol.md)
	@$(GUEST) run --kernel $(NEWEST) --module --timeout $(TIMEOUT) -- python -m tests.golden
	@cp "$$(ls -t $(BUILD)/guest/*/*.yaml | head -n 1)" tests/golden/

include installer/install.mk

##@ Check

.PHONY: lint
lint: setup ## ruff and mypy --strict
	@$(PYTHON) -m ruff check $(LINTED)
	@$(PYTHON) -m ruff format --check $(LINTED)
	@$(PYTHON) -m mypy --strict $(LINTED)

# mypy keeps one processor busy for a minute: the rest goes on meanwhile.
.PHONY: check
check: setup ## everything static: lint, checkpatch, clang-format, shellcheck, sparse, W=1, gcc -fanalyzer
	@$(MAKE) -j2 --output-sync=target lint analyze

# Warnings of sparse, W=1 and gcc's analyzer are errors: see build-module.sh. The analyzer, which takes most of the
# time, finds nothing on PREEMPT_RT that it does not find without. Where kCFI is on, a function that is
# called by another type than its own ends the kernel.
.PHONY: analyze
analyze: setup
	@$(PYTHON) -m tests.check
	@shellcheck --shell=bash $(SCRIPTS)
	@$(GUEST) releases $$($(GUEST) kernels test-all) | while read -r release; do \
		analyzer=-fanalyzer; [[ $$release != *-rt-* ]] || analyzer=; \
		guest/build-module.sh kmod_netlink "$(BUILD)/check/$$release" "$$release" \
			W=1 C=2 KCFLAGS="$$analyzer -Wcast-function-type" </dev/null; \
	done

##@ Tidy up

.PHONY: clean
clean: ## remove everything the targets made
	rm -rf $(BUILD)

.PHONY: apt
apt:
	@wanted=$$(sed 's/#.*//' apt-packages.txt | xargs); \
	missing=$$(for package in $$wanted; do \
		[[ $$(dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null) = installed ]] || \
			echo "$$package"; \
	done | xargs); \
	if [[ -n $$missing ]]; then \
		echo "Installing: $$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -q; \
		apt-get install -qy --no-install-recommends $$missing; \
	fi

# The environment may be in use, by a guest for one, while a requirement is added: it is not made anew.
$(STAMPS)/venv: requirements.txt requirements-dev.txt | apt
	@echo "Making the Python environment"
	@mkdir -p $(STAMPS)
	@[[ -x $(PYTHON) ]] || $(SYSTEM_PYTHON) -m venv --clear --system-site-packages $(VENV)
	@PYTHONPYCACHEPREFIX= $(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(STAMPS)/project: $(STAMPS)/venv pyproject.toml
	@PYTHONPYCACHEPREFIX= $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@rm -rf *.egg-info {proto,ctl}/*.egg-info
	@touch $@

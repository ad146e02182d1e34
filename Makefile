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
RELOADS ?= 300
TIMEOUT ?= 3600
DEBUG_TIMEOUT ?= 10800
# Guests with a debug kernel, which share out the test files: an emulated one keeps a processor busy.
GUESTS ?= $(shell processors=$$(nproc); echo $$((processors < 4 ? processors : 4)))
# On a debug kernel: seconds that a command in it may take, that the storm lasts, and messages of the fuzz test.
PATIENCE = --env IPTT_COMMAND_TIMEOUT=300
STORM ?= 120
DEBUG_FUZZ ?= 5000

# Keep what tools leave behind out of the source directories.
export PYTHONPYCACHEPREFIX := $(BUILD)/cache/python
export HYPOTHESIS_STORAGE_DIRECTORY := $(BUILD)/cache/hypothesis
unexport PYTHONPATH PYTHONHOME

GUEST = $(PYTHON) -m guest
# in a guest, where there is no cache to keep
PYTEST = python -m pytest -p no:cacheprovider
RUN_RELOADS = $(GUEST) run --target test-reload $(KERNEL:%=--kernel %) --timeout $(TIMEOUT) \
	--env IPTT_RELOADS=$(RELOADS) -- $(PYTEST) -s tests/kernel/test_reload.py
LINTED = $(wildcard proto ctl guest tests installer)
SCRIPTS = .ci/run guest/virtiofsd $(wildcard guest/*.sh)

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } \
	     /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	     /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Try it (in a guest: nothing reaches your machine)

.PHONY: demo
demo: KERNEL = $(INSTALLED)
demo: module ## trace packets of two network namespaces, swap programs under traffic
	@$(GUEST) run --kernel $(NEWEST) --module --timeout $(TIMEOUT) -- python -m tests.demo.demo

.PHONY: shell
shell: KERNEL = $(INSTALLED)
shell: module ## an interactive guest with the module loaded and ipttctl on the PATH (KERNEL=6.1)
	@$(GUEST) shell --kernel $(lastword $(KERNEL)) --module

##@ Test

.PHONY: test
test: check test-unit test-kernel ## every test: static checks, unit tests here, kernel tests in guests of three kernels

# Without a path pytest takes the testpaths of pyproject.toml.
.PHONY: test-unit
test-unit: setup ## tests that need no kernel module
	@$(PYTHON) -m pytest -o cache_dir=$(BUILD)/cache/pytest

.PHONY: test-kernel
test-kernel: suites module ynl ## tests inside guests, side by side (KERNEL=6.12 TESTS="tests/kernel/test_x.py -k y")
	@$(GUEST) run $(if $(filter file,$(origin KERNEL)),--target test,$(KERNEL:%=--kernel %)) --timeout $(TIMEOUT) -- $(PYTEST) $(TESTS)

# As many guests at a time as there are processors. A kernel that fails does not keep the others from their turn.
.PHONY: test-all
test-all: KERNEL = $(shell $(GUEST) kernels test-all)
test-all: suites module ynl ## the same on -rt and preempt=full too, with 1, 2 and 4 CPUs, and reloads (KERNEL=6.12-rt)
	@status=0; \
	$(GUEST) run --target test-all $(KERNEL:%=--kernel %) --timeout $(TIMEOUT) --env IPTT_COEXISTENCE=whole -- \
		$(PYTEST) $(TESTS) || status=$$?; \
	$(RUN_RELOADS) || status=$$?; \
	exit $$status

.PHONY: test-reload
test-reload: KERNEL = $(shell $(GUEST) kernels test-reload)
test-reload: module ## reload the module under a flood on every kernel (RELOADS=300 KERNEL=6.12-rt)
	@$(RUN_RELOADS)

.PHONY: test-debug
test-debug: module-kasan ynl ## every kernel test on a kernel with KASAN, lockdep, kmemleak and fault injection
	@$(GUEST) run --kernel 6.12-kasan --guests $(GUESTS) --timeout $(DEBUG_TIMEOUT) $(PATIENCE) \
		--env IPTT_STORM_SECONDS=$(STORM) --env IPTT_FUZZ=$(DEBUG_FUZZ) -- \
		python -m tests.coverage.collect -- $(PYTEST) $(TESTS)

.PHONY: test-race
test-race: module-kcsan ynl ## the same on a kernel with KCSAN, which sees data races
	@$(GUEST) run --kernel 6.12-kcsan --guests $(GUESTS) --timeout $(DEBUG_TIMEOUT) $(PATIENCE) -- \
		$(PYTEST) $(TESTS)

.PHONY: test-planted
test-planted: module-kasan ## that the tests find faults which are put into the module on purpose
	@$(PYTHON) -m tests.planted

# SECONDS is a variable of bash as well: it gets here from make's command line only.
.PHONY: storm
storm: KERNEL = $(INSTALLED)
storm: SECONDS ?= 120
storm: SEED ?= 1
storm: CPUS ?= 4
storm: module ## everything at once under traffic, replayable (SECONDS=120 SEED=1 CPUS=4 KERNEL=6.12)
	@$(GUEST) run $(KERNEL:%=--kernel %) --cpus $(CPUS) --timeout $$((10 * $(SECONDS) + 2400)) -- \
		python -m tests.storm --seconds $(SECONDS) --seed $(SEED)

# On a kernel with KCOV (KERNEL=6.12-kasan) guided by what messages reach in the module.
.PHONY: fuzz
fuzz: KERNEL = $(INSTALLED)
fuzz: N ?= 100000
fuzz: SEED ?= 1
fuzz: setup ## messages that are nearly right (N=100000 SEED=1 KERNEL=6.12-kasan)
	@$(MAKE) $(if $(filter %-kasan,$(KERNEL)),module-kasan) $(if $(filter-out %-kasan,$(KERNEL)),module)
	@$(GUEST) run $(KERNEL:%=--kernel %) --timeout $$(($(N) / 5 + 900)) \
		--env IPTT_FUZZ=$(N) --env IPTT_SEED=$(SEED) -- $(PYTEST) -s tests/kernel/test_fuzz.py

.PHONY: hot-swap
hot-swap: KERNEL = $(INSTALLED)
hot-swap: CHANGES ?= 30
hot-swap: module ## packets unseen, doubled and torn by a swap and by other ways to change programs (KERNEL=6.1)
	@$(GUEST) run $(KERNEL:%=--kernel %) --module --timeout $(TIMEOUT) -- \
		python -m tests.hot_swap --changes $(CHANGES)

.PHONY: bench
bench: KERNEL = $(INSTALLED)
bench: module ## what a link costs a packet, counted in instructions (KERNEL=6.1)
	@for series in $(KERNEL); do \
		$(GUEST) run --kernel $$series --icount --module --timeout $(TIMEOUT) \
			--env IPTT_COMMAND_TIMEOUT=1e6 -- python -m tests.bench.table_cost; \
	done

##@ Build

# What is there stays as it is for half a day.
.PHONY: suites
suites: setup ## kernels of other suites below .build/suites, and the module for them (KERNEL=7.x)
	@$(PYTHON) -m guest.suite_modules $(KERNEL)

.PHONY: setup
setup: $(STAMPS)/project ## packages from apt and the Python environment, where missing

.PHONY: module
module: setup ## the kernel module, and those of the tests, for every guest kernel
	@$(GUEST) releases $(KERNEL) $(NEWEST) | while read -r release; do \
		guest/build-module.sh kmod_netlink "$(BUILD)/kmod/$$release" "$$release" </dev/null; \
		guest/build-module.sh tests/kernel/modules "$(BUILD)/kmod-test/$$release" \
			"$$release" </dev/null; \
	done

# A kernel with debugging in it, kept outside the checkout, and the module for it.
.PHONY: kernel-kasan kernel-kcsan
kernel-kasan kernel-kcsan: kernel-%: setup
	@$(PYTHON) -m guest.debug.build $*

.PHONY: module-kasan module-kcsan
module-kasan module-kcsan: module-%: kernel-%
	@$(PYTHON) -m guest.debug.module $*

# Not in the guests, where unpacking takes minutes; they find it here.
.PHONY: ynl
ynl: setup ## the kernel's own netlink client as .build/ynl/ynl, with our spec (docs/protocol.md)
	@$(PYTHON) -m tests.ynl

.PHONY: generate
generate: setup ## the C header and the YNL spec from the protocol's definition
	@$(PYTHON) -m ipttproto.generate

##@ Install

# What installs needs little: an environment of its own, that sees the system's packages.
INSTALLER := $(BUILD)/installer/bin/python
INSTALL = PYTHONPATH=ctl:proto $(INSTALLER) -m installer
PREFIX ?= /usr/local
DESTDIR ?=
PLACE = --destdir "$(DESTDIR)/" --prefix "$(PREFIX)"

.PHONY: install
install: wheel ## ipttctl below PREFIX=/usr/local: program, library, pages, completion
	@$(INSTALL) install $(PLACE) --wheel $(BUILD)/dist/ipttctl-*.whl

.PHONY: uninstall
uninstall: $(STAMPS)/installer ## remove what install put there
	@$(INSTALL) uninstall $(PLACE)

.PHONY: wheel
wheel: $(STAMPS)/installer ## .build/dist/*.whl, the sources of module and programs inside
	@$(INSTALL) wheel $(BUILD)/dist >/dev/null

.PHONY: deb
deb: $(STAMPS)/installer ## .build/dist/*.deb, the module by DKMS (needs debhelper and dh-dkms)
	@$(INSTALL) deb $(BUILD)/dist

.PHONY: test-install
test-install: setup deb ## install the package in a guest of 6.12, boot 6.1 on the same disk, trace
	@$(PYTHON) -m tests.install $(BUILD)/dist/ipttctl_*.deb --timeout $(TIMEOUT)

.PHONY: test-install-trixie
test-install-trixie: KERNEL = 6.12-trixie
test-install-trixie: suites $(STAMPS)/installer ## build the package on Debian 13, install it in a guest there, trace
	@$(PYTHON) -m tests.install.debian_13 --kernel $(KERNEL) --timeout $(TIMEOUT)

##@ Check

.PHONY: lint
lint: setup ## ruff and mypy --strict
	@$(PYTHON) -m ruff check $(LINTED)
	@$(PYTHON) -m ruff format --check $(LINTED)
	@$(PYTHON) -m mypy --strict $(LINTED)

# Warnings of sparse, W=1 and gcc's analyzer are errors: see build-module.sh.
.PHONY: check
check: lint ## everything static: lint, checkpatch, clang-format, shellcheck, sparse, W=1, gcc -fanalyzer
	@$(PYTHON) -m tests.check
	@shellcheck --shell=bash $(SCRIPTS)
	@$(GUEST) releases $$($(GUEST) kernels test-all) | while read -r release; do \
		guest/build-module.sh kmod_netlink "$(BUILD)/check/$$release" "$$release" \
			W=1 C=2 KCFLAGS=-fanalyzer </dev/null; \
	done

# Takes what the last test-debug counted, if it was of the sources as they are.
.PHONY: coverage
coverage: setup ## lines of the module (90 %) and of Python (95 %) that the tests run, and those they do not
	@$(PYTHON) -m tests.coverage.collect --into $(BUILD)/coverage/unit -- \
		$(PYTHON) -m pytest -q -o cache_dir=$(BUILD)/cache/pytest
	@$(PYTHON) -m tests.coverage.report --ready || $(MAKE) test-debug TESTS=tests/kernel
	@$(PYTHON) -m tests.coverage.report

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

$(STAMPS)/installer: installer/requirements.txt requirements.txt requirements-dev.txt
	@echo "Making the installer's Python environment"
	@mkdir -p $(STAMPS)
	@$(SYSTEM_PYTHON) -m venv --clear --system-site-packages $(BUILD)/installer
	@# what a file of constraints includes would be installed
	@sed '/^-r/d' requirements.txt requirements-dev.txt >$(BUILD)/installer/constraints.txt
	@PYTHONPYCACHEPREFIX= $(INSTALLER) -m pip install --quiet --disable-pip-version-check --no-deps \
		-r installer/requirements.txt -c $(BUILD)/installer/constraints.txt
	@touch $@

$(STAMPS)/project: $(STAMPS)/venv pyproject.toml
	@PYTHONPYCACHEPREFIX= $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@rm -rf *.egg-info {proto,ctl}/*.egg-info
	@touch $@

# SPDX-License-Identifier: GPL-2.0
#
# Runs that take longer than those of every day, and the kernels that they need: a part of the Makefile, which includes
# this and sets the variables that are missing here. docs/testing.md says what each run proves.

RELOADS ?= 300
DEBUG_TIMEOUT ?= 10800
# Guests with a debug kernel, which share out the test files: an emulated one keeps a processor busy.
GUESTS ?= $(shell processors=$$(nproc); echo $$((processors < 4 ? processors : 4)))
# On a debug kernel: seconds that a command in it may take, that the storm lasts, messages of the fuzz test, and random
# rulesets that packets meet with chain links and without.
PATIENCE = --env IPTT_COMMAND_TIMEOUT=300
STORM ?= 120
DEBUG_FUZZ ?= 5000
NFT_CASES ?= 60

# The long cases of tests of which `make test` runs a part.
WHOLE = --env IPTT_COEXISTENCE=whole --env IPTT_FUZZ=20000 --env IPTT_NFT_CASES=400 --env IPTT_TOPOLOGIES=20 \
	--env IPTT_SERVICES=1300

RUN_RELOADS = $(GUEST) run --target test-reload $(KERNEL:%=--kernel %) --timeout $(TIMEOUT) \
	--env IPTT_RELOADS=$(RELOADS) -- $(PYTEST) -s tests/kernel/test_reload.py

##@ Long runs: more kernels, and the module coming and going

# As many guests at a time as there are processors. A kernel that fails does not keep the others from their turn.
.PHONY: test-all
test-all: KERNEL = $(shell $(GUEST) kernels test-all)
test-all: suites module ynl tests-bytecode ## kernel tests on -rt and preempt=full too, 1, 2 and 4 CPUs, then reloads (KERNEL=6.12-rt)
	@status=0; \
	$(GUEST) run --target test-all $(KERNEL:%=--kernel %) --timeout $(TIMEOUT) $(WHOLE) -- \
		$(PYTEST) $(TESTS) || status=$$?; \
	$(RUN_RELOADS) || status=$$?; \
	exit $$status

.PHONY: test-reload
test-reload: KERNEL = $(shell $(GUEST) kernels test-reload)
test-reload: module ## reload the module under a flood on every kernel (RELOADS=300 KERNEL=6.12-rt)
	@$(RUN_RELOADS)

# A root that is there stays as it is for half a day.
.PHONY: suites
suites: setup ## kernels of other suites below .build/suites, and the module for them (KERNEL=7.x)
	@$(PYTHON) -m guest.suite_modules $(KERNEL)

# The root is used as it is for half a day.
.PHONY: test-tools
test-tools: KERNEL = $(INSTALLED)
test-tools: TESTS = tests/kernel/tools
test-tools: module ## firewalld, ufw, Docker, Podman, libvirt, fail2ban as Debian has them (KERNEL=6.12)
	@$(PYTHON) -m guest.tools_root
	@$(GUEST) run $(KERNEL:%=--kernel %) --timeout $(TIMEOUT) --env IPTT_TOOLS=yes -- $(PYTEST) $(TESTS)

##@ Long runs: kernels that look for faults themselves

# The target leaves out what tests the controller; tests that are named run in any case.
of_target = $(if $(filter-out tests/kernel,$(TESTS)),,--target $(1))

.PHONY: test-debug
test-debug: module-kasan ynl tests-bytecode ## kernel tests of the module with KASAN, lockdep, kmemleak and fault injection
	@$(GUEST) run --kernel 6.12-kasan $(call of_target,test-debug) --guests $(GUESTS) \
		--timeout $(DEBUG_TIMEOUT) $(PATIENCE) --env IPTT_STORM_SECONDS=$(STORM) --env IPTT_STORM_ROUND=60 \
		--env IPTT_FUZZ=$(DEBUG_FUZZ) --env IPTT_NFT_CASES=$(NFT_CASES) --env IPTT_TOPOLOGIES=5 -- \
		python -m tests.coverage.collect -- $(PYTEST) $(TESTS)

.PHONY: test-race
test-race: module-kcsan ynl tests-bytecode ## kernel tests of the module with KCSAN, which sees data races
	@$(GUEST) run --kernel 6.12-kcsan $(call of_target,test-race) --guests $(GUESTS) --timeout $(DEBUG_TIMEOUT) $(PATIENCE) -- \
		$(PYTEST) $(TESTS)

.PHONY: test-planted
test-planted: module-kasan ## that the tests find faults which are put into the module on purpose
	@$(PYTHON) -m tests.planted

# Takes what the last test-debug counted, if it was of the sources as they are.
.PHONY: coverage
coverage: setup ## lines of the module (90 %) and of Python (95 %) that the tests run, and those they do not
	@$(PYTHON) -m tests.coverage.collect --into $(BUILD)/coverage/unit -- \
		$(PYTHON) -m pytest -q -o cache_dir=$(BUILD)/cache/pytest
	@$(PYTHON) -m tests.coverage.report --ready || $(MAKE) test-debug TESTS=tests/kernel
	@$(PYTHON) -m tests.coverage.report

# A kernel with debugging in it, kept outside the checkout, and the module for it.
.PHONY: kernel-kasan kernel-kcsan
kernel-kasan kernel-kcsan: kernel-%: setup ## those kernels, built where they are not in the cache yet
	@$(PYTHON) -m guest.debug.build $*

.PHONY: module-kasan module-kcsan
module-kasan module-kcsan: module-%: kernel-%
	@$(PYTHON) -m guest.debug.module $*

##@ Long runs: as much as you like

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

# Needs no guest. Prints how many arrivals were joined, and how many ends were left over.
.PHONY: test-joins
test-joins: PACKETS ?= 100000
test-joins: SEED ?= 1
test-joins: setup ## stories of many packets over three simulated hosts, none joined wrongly (PACKETS=100000 SEED=1)
	@IPTT_JOINS=$(PACKETS) IPTT_SEED=$(SEED) $(PYTHON) -m pytest -q -s -o cache_dir=$(BUILD)/cache/pytest \
		tests/unit/ctl/joins

##@ Long runs: measurements

.PHONY: hot-swap
hot-swap: KERNEL = $(INSTALLED)
hot-swap: CHANGES ?= 30
hot-swap: module ## packets unseen, doubled and torn by a swap and by other ways to change programs (KERNEL=6.1)
	@$(GUEST) run $(KERNEL:%=--kernel %) --module --timeout $(TIMEOUT) -- \
		python -m tests.hot_swap --changes $(CHANGES)

# On this machine, with NATS servers and no guest; docs/fleet.md and docs/recordings.md have the figures.
.PHONY: load
load: setup ## an agent, a hub of 200, a roll-out to 200, queries of many stories: what they take, and whether all came
	@for rate in 1000 50000 200000; do $(PYTHON) -m tests.load.fleet_agent $$rate 8; done
	@for load in "20 500" "200 500" "200 1000"; do $(PYTHON) -m tests.load.fleet_hub $$load 15; done
	@$(PYTHON) -m tests.load.fleet_waves 200
	@$(PYTHON) -m tests.load.queries

.PHONY: bench
bench: KERNEL = $(INSTALLED)
bench: BENCHES ?= table chain spine journey scale processors nf tracers overload reader stories change start
bench: module ## what it costs, in instructions, and what others cost: writes docs/performance.md (KERNEL=6.1 BENCHES=table)
	@mkdir -p $(BUILD)/bench
	@for series in $(KERNEL); do \
		for bench in $(BENCHES); do \
			case $$bench.$$series in \
			change.*) clocks="--icount --cpus=2" ;; \
			processors.6.1) continue ;; \
			processors.*) clocks=--icount,--cpus=4 ;; \
			*) clocks=--icount ;; \
			esac; \
			for clock in $$clocks; do \
				$(GUEST) run --kernel $$series $${clock//,/ } --module --timeout $(TIMEOUT) \
					--env IPTT_COMMAND_TIMEOUT=1e6 -- python -m tests.bench.$$bench; \
			done | tee $(BUILD)/bench/$$bench.$$series; \
		done; \
	done
	@$(PYTHON) -m tests.bench.page $(BUILD)/bench >docs/performance.md

##@ Long runs: the Debian package on a machine

.PHONY: test-install
test-install: setup deb ## install the package in a guest of 6.12, boot 6.1 on the same disk, trace
	@$(PYTHON) -m tests.install $(BUILD)/dist/ipttctl_*.deb --timeout $(TIMEOUT)

.PHONY: test-install-trixie
test-install-trixie: KERNEL = 6.12-trixie
test-install-trixie: suites $(STAMPS)/installer ## build the package on Debian 13, install it in a guest there, trace
	@$(PYTHON) -m tests.install.debian_13 --kernel $(KERNEL) --timeout $(TIMEOUT)

# SPDX-License-Identifier: GPL-2.0
#
# Installing: a part of the Makefile, which includes it.

##@ Install

# The installer needs little: an environment of its own, which sees the system's packages.
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

$(STAMPS)/installer: installer/requirements.txt requirements.txt requirements-dev.txt
	@echo "Making the installer's Python environment"
	@mkdir -p $(STAMPS)
	@$(SYSTEM_PYTHON) -m venv --clear --system-site-packages $(BUILD)/installer
	@# what a file of constraints includes would be installed
	@sed '/^-r/d' requirements.txt requirements-dev.txt >$(BUILD)/installer/constraints.txt
	@PYTHONPYCACHEPREFIX= $(INSTALLER) -m pip install --quiet --disable-pip-version-check --no-deps \
		-r installer/requirements.txt -c $(BUILD)/installer/constraints.txt
	@touch $@

# SPDX-License-Identifier: GPL-2.0
"""A kind of hook is one file of the module: no other file depends on the kind of a link's hook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipttproto.enumerations import Hook

MODULE = Path(__file__).parents[3] / "kmod_netlink"
KINDS = [hook.name for hook in Hook]
REGISTRATION = {"hook.c", "hook.h"}
DEFINITION = {"ipttrace_netlink.h"}
#: what kinds have beside their own files: whether links at chains and spine are taken, what tables
#: and chains want of NAT, links of other kinds that are on a journey, and the functions that links
#: at the spine want at hooks without any
FURTHER = {
    "CHAIN": {"verify.c", "verify_command.c", "nat.c"},
    "JOURNEY": {"link.c", "message.c", "netlink.c"},
    "SPINE": {"placeholders.c", "verify.c", "verify_command.c"},
    "TABLE": {"nat.c"},
}


def naming(kind: str) -> set[str]:
    """The files that name a kind, by its number, its header or its operations."""
    name = kind.lower()
    pattern = re.compile(rf'IPTTRACE_HOOK_{kind}\b|"{name}\.h"|\bipttrace_{name}_hook\b')
    files = (path for path in MODULE.rglob("*.[ch]") if pattern.search(path.read_text()))
    return {path.name for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_but_its_own_names_a_kind(kind: str) -> None:
    own = {f"{kind.lower()}.c", f"{kind.lower()}.h"}
    found = naming(kind)
    assert own <= found, "the test looks for something else than the module has"
    assert found - own <= REGISTRATION | DEFINITION | FURTHER.get(kind, set())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_protocol_is_registered(kind: str) -> None:
    text = (MODULE / "hook.c").read_text()
    assert f"[IPTTRACE_HOOK_{kind}] = &ipttrace_{kind.lower()}_hook," in text

# SPDX-License-Identifier: GPL-2.0
"""The sentences with which the module refuses, extracted from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).resolve().parents[2] / "kmod_netlink"

_LITERAL: Final = r'"(?:[^"\\]|\\.)*"'
_STRING: Final = re.compile(_LITERAL)
_REFUSAL: Final = re.compile(
    rf'(?:NL|GENL)_SET_ERR_MSG\w*\s*\((?P<arguments>(?:{_LITERAL}|[^";])*)\)\s*;'
)

#: a sentence that some kernels have with numbers in it: how it is without, and with
_FORMATTED: Final = re.compile(
    rf"IPTTRACE_SET_ERR_MSG_ATTR\([^;\"]*(?P<plain>{_LITERAL}),\s*(?P<format>{_LITERAL})"
)

#: sentences of attribute policies
_POLICY: Final = re.compile(rf"\.reject_message = (?P<sentence>{_LITERAL})")

NOT_BY_A_MESSAGE: Final[Mapping[str, str]] = {
    "the module is being unloaded": "only while rmmod runs; the storm does that",
    "a function of netfilter cannot be found": "no kernel that we support lacks one",
    "ftrace cannot hook a function of netfilter": "needs a kernel without ftrace's calls",
    "a function of netfilter is redirected by something else (a live patch?) or ftrace is off"
    " (sysctl kernel.ftrace_enabled)": "depends on ftrace: test_links.py, test_ftrace_that_is_off",
    "ftrace cannot hook a function of netfilter, or something else redirects it"
    " (a live patch?)": "where a module comes while links are there, and nobody is told",
    "somebody keeps changing the BPF programs at a function of netfilter: try again": "a"
    " trampoline that is updated for seconds",
    "the program has a private stack, and this kernel hides what keeps another program off it"
    " (bpf_prog_active)": "from 6.13 on, and kernels with all of kallsyms do not hide it",
    "this kernel is built without netfilter for this family and hook": "Debian's kernels have all",
    "no source of this kernel's series was compared with the walk": "on kernels of other series",
    "the kernel hides symbols of nf_tables that walking through its chains needs"
    " (CONFIG_KALLSYMS_ALL)": "Debian's kernels hide none",
    "the kernel hides xt_find_table() (CONFIG_KALLSYMS)": "Debian's kernels do not",
    "this kernel copies or frees packets in functions that are not known": "our kernels' are",
    "a tracepoint of the network cannot be watched": "no kernel that we support lacks one",
    "there are as many namespaces as verifiers get": "the 65th of a socket: test_chains.py",
    "the last swap was rolled back already: a guard did not hold": "needs packets: test_guards.py",
    "netfilter does not take another hook there": "a hook takes 1024, of which we have 128",
    "a shadow calls no function of a module: what that does cannot be checked": "takes a module"
    " that offers one: test_shadow_refused.py",
}
"""Sentences that no message can cause, whatever it contains, and the reason."""

SELDOM: Final[Mapping[str, str]] = {
    "links of the module before are being restored: `ipttctl module upgrade` completes that":
        "test_parking.py",
    "there is a link with this id": "test_parking.py",
    "there are as many journeys as can be": "test_journeys.py",
    "a link on a journey is never persistent: the journey ends with its socket": "test_journeys.py",
    "links at other hooks choose the packets of a journey: filter and limits are theirs":
        "test_journeys.py",
    "no link of before had this id": "test_parking.py",
    "a link that is restored needs its id and its generation": "test_parking.py",
    "a violation needs its condition and its link": "test_parking.py",
    "the link has another shadow than expected": "test_shadow_lifetimes.py",
    "the shadow of a link may write to a map of the programs": "test_shadow_refused.py",
    "the programs may reach maps of a link's shadow (map of maps, extension)":
        "test_shadow_refused.py",
    "a link may reach maps that the shadow writes (map of maps, extension)":
        "test_shadow_refused.py",
    "a shadow has no map of maps and no extension: what it may write there cannot be checked":
        "test_shadow_refused.py",
}  # fmt: skip  # pairs together
"""Sentences that take several links in certain states, and the kernel test that hears each.

A campaign may not come across them.
"""

ONLY_WITH_OVERRIDE: Final = "the program calls bpf_override_return, which has no meaning here"
"""The kernel loads such a program only with CONFIG_BPF_KPROBE_OVERRIDE: the debug kernel."""

WHERE_A_DUMP_BEGINS: Final = "a dump is of all links: ask for one without it"
"""The kernel reports it only where ``refused_dumps_are_explained``."""


def sentences(sources: Path = SOURCES) -> frozenset[str]:
    """Every sentence of the module's C files."""
    found = set()
    for path in sources.glob("*.c"):
        text = path.read_text()
        found |= {ast.literal_eval(said["sentence"]) for said in _POLICY.finditer(text)}
        for refusal in _REFUSAL.finditer(text):
            parts = _STRING.findall(refusal["arguments"])
            found.add("".join(ast.literal_eval(part) for part in parts))
        found |= {ast.literal_eval(said["plain"]) for said in _FORMATTED.finditer(text)}
    return frozenset(found)


class Formatted:
    """The sentences of the module that have numbers in them where the kernel can send these."""

    def __init__(self, sources: Path = SOURCES) -> None:
        self._plain = [
            (
                re.compile(
                    re.escape(ast.literal_eval(said["format"]))
                    .replace("%u", r"\d+")
                    .replace("%s", ".*")
                ),
                str(ast.literal_eval(said["plain"])),
            )
            for path in sources.glob("*.c")
            for said in _FORMATTED.finditer(path.read_text())
        ]

    def plain(self, sentence: str) -> str:
        """The sentence as it is without its numbers."""
        return next((p for shape, p in self._plain if shape.fullmatch(sentence)), sentence)

# SPDX-License-Identifier: GPL-2.0
"""Whether an upgrade of the module stands unfinished: then its links wait to be restored."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

from ipttctl.errors import ModuleError

JOURNAL: Final = Path("/var/lib/ipttctl/upgrade/journal.json")
"""The journal of an upgrade; ``ipttctl.upgrade`` writes it."""

REMEDY: Final = "run `ipttctl module upgrade`, which completes it or goes back"
"""The remedy."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """The id of this boot."""
    return _BOOT.read_text().strip()


def unfinished(journal: Path = JOURNAL) -> bool:
    """Whether there is a journal, of this boot, of an upgrade that did not end."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads(journal.read_bytes())["boot"] == boot())
    return False


def require_finished(journal: Path = JOURNAL) -> None:
    """Check that no upgrade stands unfinished.

    Raises:
        ModuleError: one does.
    """
    if unfinished(journal):
        raise ModuleError("an upgrade of the ipttrace module stands unfinished", REMEDY)

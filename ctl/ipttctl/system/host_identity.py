# SPDX-License-Identifier: GPL-2.0
"""The host, its boot, and the life of the module: what ids of links and programs belong to.

sysfs numbers its files in ascending order, in 64 bits, and never gives a number again within a
boot. So the number of the module's directory tells one life of the module from every other.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_MODULE: Final = Path("/sys/module/ipttrace")


@dataclass(frozen=True)
class HostIdentity:
    """A host by its name, one of its boots, and a life of the module in it.

    ``module_life`` is None while the module is not loaded.
    """

    host: str
    boot_id: str
    module_life: int | None

    @classmethod
    def now(cls) -> Self:
        """The present one; for what cannot be seen from here it has an empty text, or None."""
        boot = ""
        with suppress(OSError):
            boot = _BOOT.read_text().strip()
        return cls(os.uname().nodename, boot, module_life())


def module_life() -> int | None:
    """The number of the present life of the module; None while it is not loaded."""
    with suppress(OSError):
        return _MODULE.stat().st_ino
    return None

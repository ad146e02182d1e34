# SPDX-License-Identifier: GPL-2.0
"""``python -m tests.check``: print findings of the project's own checks; exit 1 if any."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from guest.errors import GuestError
from ipttproto.generate import stale
from tests.check import c_style, suppressions
from tests.check.linux_scripts import linux_scripts

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Print every complaint."""
    try:
        scripts = linux_scripts(_ROOT / ".build" / "check")
    except GuestError as error:
        print(f"check: {error}", file=sys.stderr)
        return 1
    outdated = (f"{path}: not up to date; run: make generate" for path in stale(_ROOT))
    found = itertools.chain(
        outdated, suppressions.complaints(_ROOT), c_style.complaints(_ROOT, scripts)
    )
    number = 0
    for number, complaint in enumerate(found, 1):  # noqa: B007 - the number is what is wanted
        print(complaint, flush=True)
    return 1 if number else 0


if __name__ == "__main__":
    sys.exit(main())

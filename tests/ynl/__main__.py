# SPDX-License-Identifier: GPL-2.0
"""``python -m tests.ynl``: prepare the kernel's netlink client as .build/ynl/ynl."""

from __future__ import annotations

import sys

from guest.errors import GuestError
from tests.ynl import ROOT, SPEC, ynl

_LAUNCHER = """#!/bin/sh
# Made by `make ynl`: the kernel's own netlink client with the spec of the family ipttrace.
exec /usr/bin/python3 '{cli}' --schema '{schema}' --spec '{spec}' "$@"
"""


def main() -> int:
    """Write the launcher; exit 1 with a sentence if there is no source package."""
    try:
        tool = ynl()
    except GuestError as error:
        print(f"ynl: {error}", file=sys.stderr)
        return 1
    launcher = ROOT / ".build" / "ynl" / "ynl"
    launcher.write_text(_LAUNCHER.format(cli=tool.cli, schema=tool.schema, spec=SPEC))
    launcher.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())

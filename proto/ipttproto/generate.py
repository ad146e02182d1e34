# SPDX-License-Identifier: GPL-2.0
"""``python -m ipttproto.generate [--check] [DIRECTORY]``: write the generated files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ipttproto import cheader, ynl


def generated() -> dict[str, str]:
    """Path below the project's root -> text of each generated file."""
    return {
        "kmod_netlink/ipttrace_netlink.h": cheader.uapi_header(),
        "kmod_netlink/layout_check.h": cheader.layout_check(),
        "kmod_netlink/netlink_gen.c": cheader.module_source(),
        "kmod_netlink/netlink_gen.h": cheader.module_header(),
        "proto/ipttrace.yaml": ynl.text(),
    }


def stale(root: Path) -> list[str]:
    """The generated files below ``root`` that are not up to date."""
    return [
        path
        for path, text in generated().items()
        if not (root / path).is_file() or (root / path).read_text() != text
    ]


def main() -> int:
    """Write stale files; with --check write nothing, and exit 1 if any file is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only list stale files")
    parser.add_argument("root", nargs="?", type=Path, default=Path.cwd())
    arguments = parser.parse_args()
    out_of_date = stale(arguments.root)
    for path in out_of_date:
        if not arguments.check:
            (arguments.root / path).write_text(generated()[path])
        print(f"{'stale' if arguments.check else 'generated'}: {path}")
    return 1 if arguments.check and out_of_date else 0


if __name__ == "__main__":
    sys.exit(main())

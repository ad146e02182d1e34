# SPDX-License-Identifier: GPL-2.0
"""Command line of the installer. Silent where there is nothing to do."""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import sys
from pathlib import Path, PurePosixPath
from typing import Final

from installer import deb, tree, wheel

NEEDED: Final = {
    "construct": "python3-construct",
    "numpy": "python3-numpy",
    "rich": "python3-rich",
    "shellingham": "python3-shellingham",
    "yaml": "python3-yaml",
}
"""Modules that the system's Python needs -> their Debian packages."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m installer", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    for name, what in (("wheel", "the wheel"), ("deb", "the Debian package")):
        builder = verbs.add_parser(name, help=f"build {what}, print its path")
        builder.add_argument("directory", type=Path)

    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--destdir", type=Path, default=Path("/"), help="stands for / (%(default)s)")
    place.add_argument("--prefix", type=PurePosixPath, default=PurePosixPath("/usr/local"))
    verbs.add_parser("uninstall", parents=[place], help="remove what install put there")
    installer = verbs.add_parser("install", parents=[place], help="install, or install anew")
    installer.add_argument("--wheel", type=Path, required=True, help="what to install")
    installer.add_argument("--debian", action="store_true", help="as the content of a package")
    return parser


def _missing() -> list[str]:
    """The Debian packages that the system's Python lacks."""
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def main() -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args()
    if arguments.verb in {"wheel", "deb"}:
        build = wheel.build if arguments.verb == "wheel" else deb.build
        try:
            print(build(arguments.directory))
        except deb.ToolsMissingError as error:
            print(f"installer: {error}", file=sys.stderr)
            return 1
        return 0
    directory = arguments.destdir / arguments.prefix.relative_to("/")
    if arguments.verb == "uninstall":
        if removed := tree.uninstall(directory):
            print(f"removed {removed} files below {directory}")
        return 0
    if not arguments.debian and (missing := _missing()):
        print(f"installer: missing; run: apt install {' '.join(missing)}", file=sys.stderr)
        return 1
    wanted = tree.items(arguments.wheel, arguments.prefix, debian=arguments.debian)
    changed = tree.install(wanted, directory)
    if not arguments.debian:
        compileall.compile_dir(directory / tree.PRIVATE, quiet=1, stripdir=str(arguments.destdir))
    if changed:
        print(f"installed ipttctl below {directory} ({changed} files changed)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

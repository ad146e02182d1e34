# SPDX-License-Identifier: GPL-2.0
"""Build the module for a debug kernel: ``python -m guest.debug.module kasan``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from guest.debug.recipe import VARIANTS, Recipe
from guest.errors import GuestError

_REPOSITORY = Path(__file__).resolve().parents[2]
_BUILD_SCRIPT = _REPOSITORY / "guest" / "build-module.sh"

#: instrumentation of the module alone, and not of the rest of the kernel
_INSTRUMENTS = {"kasan": ("GCOV_PROFILE=y", "KCOV_INSTRUMENT=y"), "kcsan": ()}


def build_module(recipe: Recipe, source: Path, directory: Path) -> None:
    """Build the module in ``source`` for a debug kernel, in ``directory``.

    Raises:
        KernelMissingError: the kernel is not in the cache.
        GuestError: the module does not build.
    """
    command = [str(_BUILD_SCRIPT), str(source), str(directory), recipe.kernel().release]
    environment = {**os.environ, "KERNEL_ROOT": str(recipe.directory)}
    done = subprocess.run([*command, *_INSTRUMENTS[recipe.variant]], env=environment, check=False)
    if done.returncode:
        raise GuestError(f"{source} does not build for {recipe.name}")


def main() -> int:
    """Build the module and the test modules for one variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    recipe = Recipe(parser.parse_args().variant)
    build = _REPOSITORY / ".build"
    try:
        kernel = recipe.kernel()
        build_module(recipe, _REPOSITORY / "kmod_netlink", kernel.module(build).parent)
        tests = _REPOSITORY / "tests" / "kernel" / "modules"
        build_module(recipe, tests, kernel.test_modules(build))
    except GuestError as error:
        print(f"debug kernel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0
"""Build a debug kernel, unless it is cached: ``python -m guest.debug.build kasan``."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guest.debug.recipe import VARIANTS, Recipe, cache_directory
from guest.errors import GuestError

#: files of a build that are not needed once the kernel is installed: most of its gigabytes
_LEFTOVERS = ("*.o", "*.a", "*.cmd", "vmlinux*", "*.ko", "bzImage", "System.map")
#: directories that are needed to compile modules
_KEPT_BELOW = ("scripts", "tools")


class BuildError(GuestError):
    """The kernel could not be built."""


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Make builds of one cache wait for each other."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpack(recipe: Recipe) -> None:
    if recipe.source.is_dir():
        return
    print(f"Unpacking {recipe.archive}", flush=True)
    unpacking = recipe.source.with_suffix(".unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)
    unpacking.mkdir()
    subprocess.run(
        ["tar", "-xf", recipe.archive, "-C", unpacking, "--strip-components=1"], check=True
    )
    unpacking.rename(recipe.source)


class _Make:
    """kbuild in a directory of its own; its output goes to a log."""

    def __init__(self, recipe: Recipe, output: Path) -> None:
        self._command = ["make", "-s", "-C", str(recipe.source), f"O={output}"]
        self._log = output / "build.log"

    def __call__(self, *arguments: str, **variables: str) -> None:
        command = [*self._command, *(f"{k}={v}" for k, v in variables.items()), *arguments]
        with self._log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
            raise BuildError(f"{' '.join(command)}: exit {done.returncode}\n{tail}")


def _check_configuration(recipe: Recipe, output: Path) -> None:
    """Check the options: Kconfig silently drops those it does not know or whose dependencies fail.

    Raises:
        BuildError: an option differs from the recipe.
    """
    chosen = set((output / ".config").read_text().splitlines())
    unset = {line.split()[1] for line in chosen if line.endswith(" is not set")}
    named = {line.partition("=")[0] for line in chosen if "=" in line}
    wrong = []
    for line in recipe.configuration.splitlines():
        name, _, value = line.partition("=")
        if not name.startswith("CONFIG_"):
            continue
        off = name in unset or name not in named
        if line not in chosen and not (value == "n" and off):
            wrong.append(line)
    if wrong:
        raise BuildError(f"the kernel's configuration refuses: {', '.join(wrong)}")


def _remove_leftovers(output: Path) -> None:
    kept = tuple(output / name for name in _KEPT_BELOW)
    for pattern in _LEFTOVERS:
        for path in output.rglob(pattern):
            if path.is_file() and not any(path.is_relative_to(k) for k in kept):
                path.unlink()


def _remove_outdated(recipe: Recipe) -> None:
    """Remove earlier kernels of this variant: a cache that only grows fills the disk."""
    for other in cache_directory().glob(f"{recipe.name}-*"):
        if other != recipe.directory:
            shutil.rmtree(other)


def build(recipe: Recipe, jobs: int) -> None:
    """Build and install the kernel into the cache.

    Raises:
        BuildError: kbuild failed, or the configuration refuses an option of the recipe.
        KernelMissingError: the source package is not installed.
    """
    start = time.monotonic()
    _remove_outdated(recipe)
    shutil.rmtree(recipe.directory, ignore_errors=True)
    _unpack(recipe)
    output = recipe.directory / "build"
    output.mkdir(parents=True)
    wanted = output / "wanted.config"
    wanted.write_text(recipe.configuration)
    make = _Make(recipe, output)
    make("allnoconfig", KCONFIG_ALLCONFIG=str(wanted))
    _check_configuration(recipe, output)
    make(f"-j{jobs}", "bzImage", "modules")
    make("modules_install", INSTALL_MOD_PATH=str(recipe.directory))
    release = (output / "include/config/kernel.release").read_text().strip()
    boot = recipe.directory / "boot"
    boot.mkdir()
    shutil.copy(output / "arch/x86/boot/bzImage", boot / f"vmlinuz-{release}")
    modules = recipe.directory / "lib" / "modules" / release
    for name, target in (("build", output), ("source", recipe.source)):
        (modules / name).unlink(missing_ok=True)
        (modules / name).symlink_to(target)
    _remove_leftovers(output)
    recipe.complete(release, time.monotonic() - start)


def main() -> int:
    """Build one variant if need be, and print its key and its build time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cached", action="store_true", help="fail if it is not in the cache")
    arguments = parser.parse_args()
    recipe = Recipe(arguments.variant)
    try:
        if arguments.cached:
            recipe.kernel()
            return 0
        if (seconds := recipe.build_seconds()) is not None:
            print(f"Kernel {recipe.name} is in the cache ({seconds} s to build): {recipe.key}")
            return 0
        with _locked(cache_directory()):
            # another process may have built it while we waited
            if recipe.build_seconds() is None:
                print(f"Building kernel {recipe.name}: 10 to 20 minutes on two cores", flush=True)
                build(recipe, arguments.jobs)
        print(f"Built kernel {recipe.name} in {recipe.build_seconds()} s: {recipe.key}")
    except GuestError as error:
        print(f"debug kernel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

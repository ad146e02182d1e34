# SPDX-License-Identifier: GPL-2.0
"""Importing a part of a package without the rest, in the process of a command."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from types import ModuleType


def without_the_rest(package: str) -> None:
    """Have the ``__init__`` of a package that is imported later not run: it imports everything.

    Its submodules are found as ever. Only whoever is the only user of the package in the process
    may do that: a program that imports ours as a library gets all of it.
    """
    found = PathFinder.find_spec(package)
    if package in sys.modules or found is None or found.submodule_search_locations is None:
        return
    module = ModuleType(package)
    module.__path__ = list(found.submodule_search_locations)
    module.__spec__ = found
    sys.modules[package] = module

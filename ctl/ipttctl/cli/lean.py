# SPDX-License-Identifier: GPL-2.0
"""Import of a part of a package without the rest, in the process of a command."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from types import ModuleType


def without_the_rest(package: str) -> None:
    """Keep a package's ``__init__``, which imports everything, from running when it is imported.

    Its submodules are found as usual. Only the command-line process may do this: a program that
    imports ours as a library may use the package itself, and gets all of it.
    """
    found = PathFinder.find_spec(package)
    if package in sys.modules or found is None or found.submodule_search_locations is None:
        return
    module = ModuleType(package)
    module.__path__ = list(found.submodule_search_locations)
    module.__spec__ = found
    sys.modules[package] = module

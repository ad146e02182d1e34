# SPDX-License-Identifier: GPL-2.0
"""A name in the spellings of the generated languages."""

import re


def kebab(camel: str) -> str:
    """Convert ``LinkFlag`` to ``link-flag``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", camel).lower()


def snake(name: str) -> str:
    """Convert ``link-flag`` to ``link_flag``."""
    return name.lower().replace("-", "_")


def upper(name: str) -> str:
    """Convert ``link-flag`` to ``LINK_FLAG``."""
    return snake(name).upper()

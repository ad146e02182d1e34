# SPDX-License-Identifier: GPL-2.0
"""One name in the spellings of the languages we generate."""

import re


def kebab(camel: str) -> str:
    """``LinkFlag`` -> ``link-flag``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", camel).lower()


def snake(name: str) -> str:
    """``link-flag`` -> ``link_flag``."""
    return name.lower().replace("-", "_")


def upper(name: str) -> str:
    """``link-flag`` -> ``LINK_FLAG``."""
    return snake(name).upper()

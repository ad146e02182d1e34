# SPDX-License-Identifier: GPL-2.0
"""The libraries of the extra ``ipttctl[fleet]``, which one host does without."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ipttctl.errors import IpttctlError


class MissingExtraError(IpttctlError):
    """A library is not installed."""


def arrow() -> Any:
    """Pyarrow."""
    return _library("pyarrow")


def parquet() -> Any:
    """Pyarrow's reader and writer of Parquet."""
    arrow()
    return _library("pyarrow.parquet")


def dataset() -> Any:
    """Pyarrow's tables that are read when they are asked."""
    arrow()
    return _library("pyarrow.dataset")


def duckdb() -> Any:
    """DuckDB."""
    return _library("duckdb")


def _library(name: str) -> Any:
    """A library, imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingExtraError(
            f"this needs the Python package {package}", "run: pip install 'ipttctl[fleet]'"
        ) from error

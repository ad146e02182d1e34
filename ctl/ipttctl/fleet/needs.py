# SPDX-License-Identifier: GPL-2.0
"""Libraries that only hosts of a fleet need."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from ipttctl.errors import UsageError

PACKAGES: Final = {
    "msgspec": "msgspec",
    "nats": "nats-py",
    "nkeys": "nkeys",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
    "prometheus_client": "prometheus-client",
}
"""Modules, and the packages that have them."""


def require(*modules: str) -> None:
    """Check that libraries are there, without importing them.

    Raises:
        UsageError: one is missing.
    """
    missing = [PACKAGES[name] for name in modules if not _there(name)]
    if missing:
        raise UsageError(
            f"this needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed",
            "run: pip install 'ipttctl[fleet]'",
        )


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    # a package that it is in is missing
    except ModuleNotFoundError:
        return False

# SPDX-License-Identifier: GPL-2.0
"""The files by which a collector of OpenTelemetry is reached: its headers, and its authorities."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ipttctl.errors import UsageError, os_reason
from ipttctl.fleet.config import OtlpOptions
from ipttctl.state.option_files import read_text

_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x21-\x7e][\x20-\x7e]*)")
_GROUP_AND_OTHERS: Final = 0o077


def check_collector(config: OtlpOptions) -> None:
    """Check that the files are there, and that nobody else reads the headers.

    Raises:
        UsageError: one is not.
    """
    if file := config.headers_file:
        if _mode("headers-file", file) & _GROUP_AND_OTHERS:
            raise UsageError(
                f"otlp.headers-file: others than its owner may read {file}",
                f"run: chmod 600 {file}",
            )
        headers_of(config)
    if config.ca:
        _mode("ca", config.ca)


def headers_of(config: OtlpOptions) -> dict[str, str]:
    """The headers that a collector wants to have.

    Raises:
        UsageError: the file cannot be read, or a line is none.
    """
    found: dict[str, str] = {}
    if config.headers_file is None:
        return found
    for number, line in enumerate(read_text(config.headers_file).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        # the value is a secret: no sentence shows it
        header = _HEADER.fullmatch(text)
        if header is None:
            raise UsageError(
                f"otlp.headers-file: {config.headers_file}, line {number}: this is no header",
                "write NAME: VALUE",
            )
        found[header[1].lower()] = header[2]
    return found


def _mode(name: str, file: str) -> int:
    """The mode of a file that can be read."""
    path = Path(file)
    try:
        mode = path.stat().st_mode
        path.read_bytes()
    except OSError as error:
        raise UsageError(f"otlp.{name}: cannot read {file}: {os_reason(error)}") from None
    return mode

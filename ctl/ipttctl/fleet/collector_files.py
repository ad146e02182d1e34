# SPDX-License-Identifier: GPL-2.0
"""The files by which a collector of OpenTelemetry is reached: its headers, and its authorities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ipttctl.errors import UsageError
from ipttctl.fleet.config import OtlpOptions
from ipttctl.fleet.explain import Mistake
from ipttctl.fleet.server_files import mistakes_of_authorities, read_file
from ipttctl.state.option_files import read_text

_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x21-\x7e][\x20-\x7e]*)")


def mistakes_of_collector(config: OtlpOptions) -> Iterator[Mistake]:
    """Mistakes in the files: they are there, and nobody else may read the headers."""
    if file := config.headers_file:
        content = read_file("headers-file", file, private=True)
        if isinstance(content, Mistake):
            yield content
        else:
            try:
                headers_of(config)
            except UsageError as error:
                sentence = error.problem.removeprefix("otlp.headers-file: ")
                yield Mistake("headers-file", sentence, error.remedy)
    if config.ca:
        content = read_file("ca", config.ca, private=False)
        if isinstance(content, Mistake):
            yield content
        else:
            yield from mistakes_of_authorities("ca", config.ca)


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

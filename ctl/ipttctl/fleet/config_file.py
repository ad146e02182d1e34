# SPDX-License-Identifier: GPL-2.0
"""The file of the agent's configuration, read strictly: a mistake is told with its key and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from ipttctl.durations import milliseconds
from ipttctl.errors import IpttctlError, UsageError, os_reason
from ipttctl.fleet.config import AgentConfig, OtlpOptions
from ipttctl.link.limits import Limits
from ipttctl.state.option_files import parse_text, read_text

_AT: Final = re.compile(r"^(.*?)(?: - at `(?:key in )?\$(.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x21-\x7e][\x20-\x7e]*)")
_GROUP_AND_OTHERS: Final = 0o077

#: least and most milliseconds of times
_TIMES: Final = {
    "publish.linger": (1, 10_000),
    "stream.age": (60_000, 90 * 86_400_000),
    "traces.lease": (1000, 3_600_000),
    "traces.longest": (1000, 86_400_000),
    "heartbeat": (100, 300_000),
    "drain": (0, 60_000),
}


def read_config(file: str) -> AgentConfig:
    """Read a configuration.

    Raises:
        UsageError: it cannot be read, or something in it is not valid.
    """
    return parse_config(read_text(file), file)


def parse_config(text: str, called: str) -> AgentConfig:
    """The configuration of a text; ``called`` names it in errors.

    Raises:
        UsageError: something in it is not valid.
    """
    content = parse_text(text, called)
    lines = _lines(text)
    try:
        config = msgspec.convert(content, AgentConfig)
    except msgspec.ValidationError as error:
        path, sentence = _explain(str(error))
        raise UsageError(f"{called}{_where(lines, path)}: {sentence}") from None
    for path, sentence in _mistakes(config):
        raise UsageError(f"{called}{_where(lines, path)}: {path}: {sentence}")
    return config


def seconds(text: str) -> float:
    """A time of a configuration that was checked."""
    found = milliseconds(text)
    assert found is not None
    return found / 1000


def check_files(config: AgentConfig) -> None:
    """Check that the files of keys and certificates are there, and that nobody else reads seeds.

    Raises:
        UsageError: one is not.
    """
    leaf = config.leaf
    for name in ("credentials", "nkey", "ca", "certificate", "key"):
        if file := getattr(leaf, name):
            _check_file(f"leaf.{name}", file, secret=name in ("credentials", "nkey", "key"))
    if config.otlp:
        if config.otlp.headers_file:
            _check_file("otlp.headers-file", config.otlp.headers_file, secret=True)
            headers_of(config.otlp)
        if config.otlp.ca:
            _check_file("otlp.ca", config.otlp.ca, secret=False)


def _check_file(key: str, file: str, *, secret: bool) -> None:
    path = Path(file)
    try:
        mode = path.stat().st_mode
        path.read_bytes()
    except OSError as error:
        raise UsageError(f"{key}: cannot read {file}: {os_reason(error)}") from None
    if secret and mode & _GROUP_AND_OTHERS:
        raise UsageError(f"{key}: others than its owner may read {file}", f"run: chmod 600 {file}")


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


def _mistakes(config: AgentConfig) -> Iterator[tuple[str, str]]:
    """Mistakes that types do not tell, each with its key."""
    leaf = config.leaf
    if (leaf.credentials is None) == (leaf.nkey is None):
        yield "leaf", "the agent has to say who it is: give credentials or nkey, and not both"
    if (leaf.certificate is None) != (leaf.key is None):
        yield "leaf", "certificate and key go together"
    if not leaf.url.startswith("tls://") and (leaf.ca or leaf.certificate):
        yield "leaf.url", "ca, certificate and key are for TLS: write tls:// before the host"
    if config.otlp and config.otlp.ca and not config.otlp.url.startswith("https://"):
        yield "otlp.url", "ca is for TLS: write https:// before the host"
    if len(set(config.allow)) < len(config.allow):
        yield "allow", "a verb is there twice"
    try:
        _ = config.token
    except ValueError as error:
        yield "host", str(error)
    try:
        Limits.parse(governor=config.traces.governor)
    except IpttctlError as error:
        yield "traces.governor", str(error).removeprefix("--governor: ")
    for path, (least, most) in _TIMES.items():
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        time = milliseconds(value)
        if time is None or not least <= time <= most:
            yield path, f"{value} is not between {least} ms and {most} ms"


def _explain(text: str) -> tuple[str, str]:
    """The path of a key, and a sentence, of a message of msgspec."""
    found = _AT.match(text)
    assert found is not None
    message, path = found[1], (found[2] or "").removeprefix(".")
    for pattern, sentence in ((_UNKNOWN, "there is no such key"), (_MISSING, "the key is missing")):
        if key := pattern.fullmatch(message):
            whole = f"{path}.{key[1]}".removeprefix(".")
            return whole, f"{whole}: {sentence}"
    sentence = message[:1].lower() + message[1:]
    return path, f"{path}: {sentence}" if path else sentence


def _where(lines: dict[str, int], path: str) -> str:
    """The line of a key, or of the object around it."""
    while path:
        if path in lines:
            return f", line {lines[path]}"
        path = re.sub(r"(^|\.|(?=\[))[^.\[]*$|\[[^\[]*\]$", "", path)
    return ""


def _lines(text: str) -> dict[str, int]:
    """The line of each key, by its path."""
    found: dict[str, int] = {}

    def visit(node: yaml.Node | None, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                below = f"{path}.{key.value}".removeprefix(".")
                found[below] = key.start_mark.line + 1
                # msgspec does not name the keys of a dictionary
                found.setdefault(f"{path}[...]", key.start_mark.line + 1)
                visit(value, below)
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                found[f"{path}[{place}]"] = value.start_mark.line + 1
                visit(value, f"{path}[{place}]")

    # parsed already: it is valid, and not too deep
    visit(yaml.compose(text, yaml.SafeLoader), "")
    return found

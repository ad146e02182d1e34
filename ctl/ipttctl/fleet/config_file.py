# SPDX-License-Identifier: GPL-2.0
"""Files of configurations, read strictly: a mistake is told with its key and line.

There is the agent's, and that of whoever asks hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ipttctl.bpf.filters import compile_filter
from ipttctl.durations import milliseconds
from ipttctl.errors import IpttctlError, UsageError, os_reason
from ipttctl.fleet.config import AgentConfig, HubConfig, LeafOptions, WatchOptions
from ipttctl.fleet.explain import explain, where
from ipttctl.fleet.filter_words import check_filter
from ipttctl.link.limits import Limits
from ipttctl.state.option_files import parse_document, read_text

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


_C = TypeVar("_C", AgentConfig, HubConfig)


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
    return _parse(text, called, AgentConfig, _mistakes)


def parse_hub(text: str, called: str) -> HubConfig:
    """The settings of whoever asks hosts, of a text; ``called`` names it in errors.

    Raises:
        UsageError: something in it is not valid.
    """
    return _parse(text, called, HubConfig, _mistakes_of_server)


def _parse(
    text: str, called: str, kind: type[_C], mistakes: Callable[[_C], Iterator[tuple[str, str]]]
) -> _C:
    document = parse_document(text, called)
    try:
        config = msgspec.convert(document.content, kind)
    except msgspec.ValidationError as error:
        path, sentence = explain(error, kind, document.content)
        raise UsageError(f"{called}{where(document.root, path)}: {sentence}") from None
    for path, sentence in mistakes(config):
        key = f"{path}: " if path else ""
        raise UsageError(f"{called}{where(document.root, path)}: {key}{sentence}")
    return config


def seconds(text: str) -> float:
    """A time of a configuration that was checked."""
    found = milliseconds(text)
    assert found is not None
    return found / 1000


def check_files(server: LeafOptions, inside: str = "") -> None:
    """Check that the files of keys and certificates are there, and that nobody else reads seeds.

    ``inside`` is the key of the object that names them, and a dot.

    Raises:
        UsageError: one is not.
    """
    for name in ("credentials", "nkey", "ca", "certificate", "key"):
        file = getattr(server, name)
        if file is None:
            continue
        path = Path(file)
        try:
            mode = path.stat().st_mode
            path.read_bytes()
        except OSError as error:
            raise UsageError(f"{inside}{name}: cannot read {file}: {os_reason(error)}") from None
        if name in ("credentials", "nkey", "key") and mode & _GROUP_AND_OTHERS:
            raise UsageError(
                f"{inside}{name}: others than its owner may read {file}", f"run: chmod 600 {file}"
            )


def _mistakes(config: AgentConfig) -> Iterator[tuple[str, str]]:
    """Mistakes that types do not tell, each with its key."""
    for path, sentence in _mistakes_of_server(config.leaf, "the agent has"):
        yield f"leaf.{path}".removesuffix("."), sentence
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
    names: set[str] = set()
    for place, watch in enumerate(config.watch):
        if watch.name in names:
            yield f"watch[{place}].name", f"there is another watch {watch.name}"
        names.add(watch.name)
        for key, sentence in _mistakes_of_watch(watch):
            yield f"watch[{place}].{key}", sentence
    for path, (least, most) in _TIMES.items():
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        time = milliseconds(value)
        if time is None or not least <= time <= most:
            yield path, f"{value} is not between {least} ms and {most} ms"


def _mistakes_of_watch(watch: WatchOptions) -> Iterator[tuple[str, str]]:
    """Mistakes in a watch, each with its key."""
    try:
        # an agent that is started before there are name servers has to find the same packets
        check_filter(watch.filter)
        if watch.filter.strip():
            compile_filter(watch.filter)
    except IpttctlError as error:
        yield "filter", str(error)
    limits = {"governor": watch.governor, "sample": watch.sample, "limit-rate": watch.limit_rate}
    for key, value in limits.items():
        try:
            Limits.parse(**{key.removeprefix("limit-"): value})
        except IpttctlError as error:
            yield key, str(error).removeprefix(f"--{key}: ")


def _mistakes_of_server(
    server: LeafOptions, who: str = "whoever asks has"
) -> Iterator[tuple[str, str]]:
    """Mistakes in how a server is reached; the key is empty if it is of several keys."""
    if (server.credentials is None) == (server.nkey is None):
        yield "", f"{who} to say who it is: give credentials or nkey, and not both"
    if (server.certificate is None) != (server.key is None):
        yield "", "certificate and key go together"
    if not server.url.startswith("tls://") and (server.ca or server.certificate):
        yield "url", "ca, certificate and key are for TLS: write tls:// before the host"

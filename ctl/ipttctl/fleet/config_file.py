# SPDX-License-Identifier: GPL-2.0
"""Files of configurations, read strictly: a mistake is told with its key and line.

There is the agent's, and that of whoever asks hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from ipttctl.bpf.filters import compile_filter
from ipttctl.durations import in_words, milliseconds
from ipttctl.errors import IpttctlError, UsageError
from ipttctl.fleet.collector_files import mistakes_of_collector
from ipttctl.fleet.config import AgentConfig, HubConfig, LeafOptions, WatchOptions
from ipttctl.fleet.explain import Mistake, explain, where
from ipttctl.fleet.filter_words import check_filter
from ipttctl.fleet.server_files import mistakes_of_files
from ipttctl.fleet.spellings import ADDRESS, SENTENCES
from ipttctl.link.limits import Limits
from ipttctl.state.option_files import parse_document, read_text

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
    """Read a configuration, and check the files that it names.

    Raises:
        UsageError: it cannot be read, or something in it or in these files is not valid.
    """
    return _parse(read_text(file), file, AgentConfig, _mistakes, _mistakes_of_files)


def parse_config(text: str, called: str) -> AgentConfig:
    """The configuration of a text; ``called`` names it in errors.

    Raises:
        UsageError: something in it is not valid.
    """
    return _parse(text, called, AgentConfig, _mistakes)


def read_hub_file(file: str) -> HubConfig:
    """Read the settings of whoever asks hosts, and check the files that they name.

    Raises:
        UsageError: they cannot be read, or something in them or in these files is not valid.
    """
    return _parse(read_text(file), file, HubConfig, _mistakes_of_server, mistakes_of_files)


def _parse(text: str, called: str, kind: type[_C], *looks: Callable[[_C], Iterator[Mistake]]) -> _C:
    document = parse_document(text, called)
    try:
        config = msgspec.convert(document.content, kind)
    except msgspec.ValidationError as error:
        mistake = explain(error, kind, document.content)
    else:
        first = next((one for look in looks for one in look(config)), None)
        if first is None:
            return config
        mistake = first
    raise UsageError(f"{called}{where(document.root, mistake.path)}: {mistake}", mistake.remedy)


def seconds(text: str) -> float:
    """A time of a configuration that was checked."""
    found = milliseconds(text)
    assert found is not None
    return found / 1000


def _mistakes(config: AgentConfig) -> Iterator[Mistake]:
    """Mistakes that types do not tell, each with its key."""
    for mistake in _mistakes_of_server(config.leaf, "the agent has"):
        yield mistake.inside("leaf")
    yield from _mistakes_of_outlets(config)
    if len(set(config.allow)) < len(config.allow):
        yield Mistake("allow", "a verb is there twice")
    try:
        _ = config.token
    except ValueError as error:
        yield Mistake("host", str(error))
    try:
        Limits.parse(governor=config.traces.governor)
    except IpttctlError as error:
        yield Mistake("traces.governor", str(error).removeprefix("--governor: "))
    names: set[str] = set()
    for place, watch in enumerate(config.watch):
        if watch.name in names:
            yield Mistake(f"watch[{place}].name", f"there is another watch {watch.name}")
        names.add(watch.name)
        for mistake in _mistakes_of_watch(watch):
            yield mistake.inside(f"watch[{place}]")
    for path, (least, most) in _TIMES.items():
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        time = milliseconds(value)
        if time is None or not least <= time <= most:
            yield Mistake(path, f"{value} is not between {in_words(least)} and {in_words(most)}")


def _mistakes_of_outlets(config: AgentConfig) -> Iterator[Mistake]:
    """Mistakes in where metrics and drops go."""
    if config.metrics and not _is_address(config.metrics.address):
        yield Mistake("metrics.address", SENTENCES[ADDRESS])
    if config.otlp:
        for sentence in _mistakes_of_url(config.otlp.url):
            yield Mistake("otlp.url", sentence)
        if config.otlp.ca and not config.otlp.url.startswith("https://"):
            yield Mistake("otlp.url", "ca is for TLS: write https:// before the host")


def _mistakes_of_watch(watch: WatchOptions) -> Iterator[Mistake]:
    """Mistakes in a watch, each with its key."""
    try:
        # an agent that is started before there are name servers has to find the same packets
        check_filter(watch.filter)
        if watch.filter.strip():
            compile_filter(watch.filter)
    except IpttctlError as error:
        yield Mistake("filter", str(error))
    limits = {"governor": watch.governor, "sample": watch.sample, "limit-rate": watch.limit_rate}
    for key, value in limits.items():
        try:
            Limits.parse(**{key.removeprefix("limit-"): value})
        except IpttctlError as error:
            yield Mistake(key, str(error).removeprefix(f"--{key}: "))


def _mistakes_of_server(server: LeafOptions, who: str = "whoever asks has") -> Iterator[Mistake]:
    """Mistakes in how a server is reached; the key is empty if it is of several keys."""
    if (server.credentials is None) == (server.nkey is None):
        yield Mistake("", f"{who} to say who it is: give credentials or nkey, and not both")
    if (server.certificate is None) != (server.key is None):
        yield Mistake("", "certificate and key go together")
    if not server.url.startswith("tls://") and (server.ca or server.certificate):
        yield Mistake("url", "ca, certificate and key are for TLS: write tls:// before the host")
    for sentence in _mistakes_of_url(server.url):
        yield Mistake("url", sentence)


def _mistakes_of_url(url: str) -> Iterator[str]:
    """Mistakes in an address that its pattern lets through."""
    try:
        parts = urlsplit(url)
        if parts.hostname is None:
            yield "there is no host in it"
    except ValueError:
        yield "there is no host in it"
        return
    try:
        good = parts.port != 0
    except ValueError:
        good = False
    if not good:
        yield "the port is none from 1 to 65535"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _mistakes_of_files(config: AgentConfig) -> Iterator[Mistake]:
    """Mistakes in the files that a configuration names."""
    for mistake in mistakes_of_files(config.leaf):
        yield mistake.inside("leaf")
    if config.otlp:
        for mistake in mistakes_of_collector(config.otlp):
            yield mistake.inside("otlp")

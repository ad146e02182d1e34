# SPDX-License-Identifier: GPL-2.0
"""The agent's configuration: what each key means, and its default."""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field, structs

from ipttctl.fleet.filter_words import LONGEST as LONGEST_FILTER
from ipttctl.fleet.spellings import (
    ADDRESS,
    COLLECTOR,
    DIGEST,
    HOST,
    LABEL,
    NAME,
    NAMESPACE,
    PATH,
    PUBLIC_KEY,
    SERVER,
    TIME,
    WATCH,
)
from ipttctl.fleet.subjects import host_token, stream

Verb: TypeAlias = Literal[
    "apply", "attach", "confirm", "detach", "diff", "links", "rollback", "status", "swap", "trace"
]

LinkMode: TypeAlias = Literal["observe", "filter"]
"""Rights of a link's programs over packets, as declared files have them: to see or drop them."""

_Time: TypeAlias = Annotated[str, Meta(pattern=TIME)]
_Path: TypeAlias = Annotated[str, Meta(pattern=PATH, max_length=4096)]
_Label: TypeAlias = Annotated[str, Meta(pattern=LABEL)]
_Host: TypeAlias = Annotated[str, Meta(pattern=HOST)]
_Name: TypeAlias = Annotated[str, Meta(pattern=NAME)]

_Namespace: TypeAlias = Annotated[str, Meta(pattern=NAMESPACE)]

# a header of frames and a label of metrics have it
_Watch: TypeAlias = Annotated[str, Meta(pattern=WATCH)]

# the longest text of limits that makes sense has room in it
_Limit: TypeAlias = Annotated[str, Meta(max_length=64)]

_MEBI: Final = 1 << 20


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An object of the file, in which no other key may be."""


class LeafOptions(_Section, frozen=True):
    """The server on this host, and who the agent is there: one of credentials and nkey."""

    url: Annotated[str, Meta(pattern=SERVER, max_length=255)]
    credentials: _Path | None = None
    """File of a user's JWT and seed."""
    nkey: _Path | None = None
    """File of an nkey's seed."""
    ca: _Path | None = None
    """Certificates of the authorities that the server's is checked against."""
    certificate: _Path | None = None
    key: _Path | None = None


class PublishOptions(_Section, frozen=True):
    """The choice of events and stories that leave the host, and the size of frames."""

    events: Literal["traces", "all", "none"] = "traces"
    """Those of links that the fleet's traces made, those of every link, or none."""
    stories: bool = True
    frame: Annotated[int, Meta(ge=1024, le=512 * 1024)] = 128 * 1024
    """Bytes of records from which on a frame is not filled further."""
    linger: _Time = "100ms"
    """How long a frame waits to be filled."""


class SpoolOptions(_Section, frozen=True):
    """Frames that wait in memory for the leaf."""

    bytes: Annotated[int, Meta(ge=_MEBI, le=4096 * _MEBI)] = 32 * _MEBI


class StreamOptions(_Section, frozen=True):
    """The stream on the leaf. What exceeds a bound is thrown away, the oldest first."""

    name: _Name | None = None
    bytes: Annotated[int, Meta(ge=4 * _MEBI, le=1 << 40)] = 256 * _MEBI
    age: _Time = "24h"


class TracesOptions(_Section, frozen=True):
    """Quotas of traces that others ask for."""

    most: Annotated[int, Meta(ge=1, le=16)] = 4
    """At a time."""
    lease: _Time = "60s"
    """The longest time for which a trace goes on without being renewed."""
    longest: _Time = "1h"
    """The longest time that a trace can be renewed to."""
    governor: _Limit = "50000/s,20%"
    """Budgets of each of its links, as for ``trace --governor``."""


class WatchOptions(_Section, frozen=True):
    """A watch: a trace that the agent begins itself, and that ends with it."""

    name: _Watch
    filter: Annotated[str, Meta(max_length=LONGEST_FILTER)] = ""
    """The choice of packets; all of them if it is empty."""
    drops: bool = False
    """Tell stories of packets that were dropped, and of no others."""
    both_ways: bool = field(default=False, name="both-ways")
    governor: _Limit | None = None
    """Budgets of each of its links; those of ``traces`` if they are left out."""
    sample: _Limit | None = None
    """The part of the packets that is followed, as for ``trace --sample``."""
    limit_rate: _Limit | None = field(default=None, name="limit-rate")
    """Packets a second at most, as for ``trace --limit-rate``."""


class ObjectsOptions(_Section, frozen=True):
    """Compiled objects from others."""

    bucket: _Name = "ipttctl-objects"
    domain: _Name | None = None
    """JetStream's domain that has the bucket; that of the leaf if it is left out."""
    largest: Annotated[int, Meta(ge=1024, le=64 * _MEBI)] = 4 * _MEBI
    directory: _Path = "/var/lib/ipttctl/agent"


class TrustOptions(_Section, frozen=True):
    """Objects that others may have this host run, if ``allow`` has the verb."""

    keys: list[Annotated[str, Meta(pattern=PUBLIC_KEY)]] = field(default_factory=list)
    """Keys whose grants are believed."""
    digests: list[Annotated[str, Meta(pattern=DIGEST)]] = field(default_factory=list)
    """Objects that need no grant to observe."""
    filters: list[Annotated[str, Meta(pattern=DIGEST)]] = field(default_factory=list)
    """Objects that need no grant to filter, which is to drop packets, or to observe."""


class MetricsOptions(_Section, frozen=True):
    """An HTTP server for Prometheus; without this object there is none."""

    address: Annotated[str, Meta(pattern=ADDRESS)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9477
    rules: Annotated[int, Meta(ge=0, le=10_000)] = 200
    """Most rules that have a counter of their own."""


class OtlpOptions(_Section, frozen=True):
    """A collector of OpenTelemetry, which is sent drops; without this object there is none."""

    url: Annotated[str, Meta(pattern=COLLECTOR, max_length=255)]
    """Its address; the path is ``/v1/logs`` unless another one is given."""
    headers_file: _Path | None = field(default=None, name="headers-file")
    """File of headers, one ``NAME: VALUE`` a line, such as a token."""
    ca: _Path | None = None
    """Certificates of the authorities that its own is checked against."""


class HubConfig(LeafOptions, frozen=True):
    """The file of whoever asks hosts: the hub, who one is there, and where objects are put."""

    bucket: _Name = "ipttctl-objects"
    bucket_bytes: Annotated[int, Meta(ge=_MEBI)] = field(default=256 * _MEBI, name="bucket-bytes")
    """Most bytes there, but for objects that were put there lately."""
    stream: _Name = "ipttctl"
    """The stream in which the hub keeps what the leaves have."""


class AgentConfig(_Section, frozen=True):
    """The whole file of an agent."""

    leaf: LeafOptions
    host: _Host = field(default_factory=lambda: os.uname().nodename)
    labels: Annotated[dict[_Label, _Label], Meta(max_length=32)] = field(default_factory=dict)
    netns: _Namespace | None = None
    """Name of the network namespace that traces are limited to, as if it were a host."""
    allow: list[Verb] = field(default_factory=lambda: ["trace", "links"])
    publish: PublishOptions = field(default_factory=PublishOptions)
    spool: SpoolOptions = field(default_factory=SpoolOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    traces: TracesOptions = field(default_factory=TracesOptions)
    watch: Annotated[list[WatchOptions], Meta(max_length=16)] = field(default_factory=list)
    """Traces that run whether anybody asks or not."""
    objects: ObjectsOptions = field(default_factory=ObjectsOptions)
    trust: TrustOptions = field(default_factory=TrustOptions)
    metrics: MetricsOptions | None = None
    otlp: OtlpOptions | None = None
    heartbeat: _Time = "5s"
    drain: _Time = "5s"
    """How long the end waits until what is known is published."""

    @property
    def token(self) -> str:
        """The host's token in subjects."""
        return host_token(self.host)

    @property
    def own_objects(self) -> ObjectsOptions:
        """The options of objects, with a directory that no other agent of this machine has.

        Those of several namespaces may have the same configuration, and links of their own.
        """
        if self.netns is None:
            return self.objects
        directory = f"{self.objects.directory}/{self.netns}"
        return structs.replace(self.objects, directory=directory)

    @property
    def stream_name(self) -> str:
        """The name of the leaf's stream."""
        return self.stream.name or stream(self.token)

# SPDX-License-Identifier: GPL-2.0
"""``ipttctl record``: a trace that goes to a file, to be shown, exported and queried later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from ipttctl.cli.file_names import file_named
from ipttctl.cli.groups import grouped
from ipttctl.cli.printing import note
from ipttctl.cli.record_rulesets import RecordedRulesets
from ipttctl.cli.record_view import LinesRecordView, Recorded, RecordView
from ipttctl.cli.sizes import parse_size
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.trace_options import (
    AddressOption,
    BackendOption,
    CommandOption,
    CountOption,
    FilterArgument,
    IcmpIdOption,
    NamespaceOption,
    Only4Option,
    Only6Option,
    PidOption,
    PortOption,
    ProtocolOption,
    packet_choice,
)
from ipttctl.cli.trace_run import AskedTrace, Traced, run_trace
from ipttctl.cli.view import LinkEvents
from ipttctl.errors import UsageError
from ipttctl.programs.limit_options import LimitOptions
from ipttctl.programs.trace import MOST_SNAPLEN
from ipttctl.recordings.writer import LEAST_SIZE, VERSION, RecordingWriter, check_new
from ipttctl.show.stream_head import stream_head
from ipttctl.system.host_identity import HostIdentity

BothWaysOption = Annotated[
    bool,
    typer.Option(
        "--both-ways",
        help="follow the answers too: the other direction of the packets' connections",
    ),
]
LinesOption = Annotated[
    bool, typer.Option("--lines", help="record rules and verdicts only, and tell no stories")
]
StopAfterOption = Annotated[
    float | None,
    typer.Option("--stop-after", metavar="SECONDS", help="end after so much time"),
]


@grouped
def record(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", parser=file_named, help="the recording to make")
    ],
    expression: FilterArgument = None,
    address: AddressOption = None,
    protocol: ProtocolOption = "any",
    port: PortOption = None,
    icmp_id: IcmpIdOption = None,
    pid: PidOption = None,
    namespace: NamespaceOption = None,
    count: CountOption = None,
    only4: Only4Option = False,
    only6: Only6Option = False,
    backend: BackendOption = None,
    both_ways: BothWaysOption = False,
    lines: LinesOption = False,
    stop_after: StopAfterOption = None,
    command: CommandOption = None,
    limits: LimitOptions,
    snaplen: Annotated[
        int,
        typer.Option(
            "--snaplen",
            min=0,
            max=MOST_SNAPLEN,
            metavar="BYTES",
            help="keep so many bytes of each packet for `ipttctl export --pcapng`",
        ),
    ] = 0,
    max_size: Annotated[
        str,
        typer.Option(
            "--max-size",
            metavar="BYTES",
            help="most bytes of the file, with K, M or G; what comes later is counted only",
        ),
    ] = "1G",
    force: Annotated[
        bool, typer.Option("--force", help="replace the file if there is one")
    ] = False,
) -> None:
    """Record a trace into FILE: its events, its stories, and the rules and names that they need.

    Packets are chosen as `ipttctl trace` chooses them. `ipttctl show` prints the recording as the
    trace would have, on any machine and without root; `ipttctl export` makes Parquet and pcapng of
    it, `ipttctl query` answers questions on it.

    With --snaplen the first bytes of each packet are kept, from the IP header on, as they are
    behind the first function of a hook of IPv4 or IPv6. They may hold what people send each other.

    The file is readable by its owner only. It holds the texts of the rules that packets met, as
    they were then, the whole rulesets of their network namespaces, and the names of the processes
    and containers at both ends.

    Ends as a trace does: with Ctrl-C, after -c stories or events, after --stop-after, with the
    command of --cmd, or with the process of -p or the namespace of -N. Everything that was seen is
    then written. If the recording is killed, all but the last moments are in the file. Once the
    file has the size of --max-size, nothing more is added, and what is left out is counted; the
    counts are in the file, and `ipttctl show` tells them.
    """
    packets = packet_choice(
        expression=expression,
        address=address,
        protocol=protocol,
        port=port,
        icmp_id=icmp_id,
        pid=pid,
        namespace=namespace,
        only4=only4,
        only6=only6,
        backend=backend,
    )
    if snaplen and lines:
        raise UsageError("--snaplen is of stories", "leave out --lines")
    stories = StoryOptions(lines=lines, both_ways=both_ways, stop_after=stop_after)
    stories.check()
    # what makes no sense is told without a module too
    limits.limits()
    most = parse_size("--max-size", max_size)
    if most < LEAST_SIZE:
        raise UsageError(f"--max-size: {max_size} is too little", f"at least {LEAST_SIZE}")
    check_new(file, replace=force)
    with ExitStack() as stack:
        identity = HostIdentity.now()

        def make() -> RecordingWriter:
            made = RecordingWriter(file, identity.host, identity.boot_id, most, replace=force)
            return stack.enter_context(made)

        use = _Use(stories, count, identity, packets.expression, snaplen, make)
        run_trace(AskedTrace(packets, stories, command, limits, snaplen), use)
        note(f"{file}: {use.writer.size} bytes")


@dataclass
class _Use:
    """The use of a trace that records it, in a file that is made once packets are watched."""

    stories: StoryOptions
    count: int | None
    identity: HostIdentity
    expression: str
    snaplen: int
    make: Callable[[], RecordingWriter]
    _recorded: Recorded | None = None

    @cached_property
    def writer(self) -> RecordingWriter:
        """The recording."""
        return self.make()

    def shows_rules(self, *, stories: bool) -> bool:
        """Rules are recorded always."""
        del stories
        return True

    def begin(self, traced: Traced) -> None:
        """Write the beginning."""
        stream = "stories" if traced.stories else "trace"
        status = traced.controller.status()
        losses = lambda: traced.events.losses  # noqa: E731 - it is asked again and again
        self._recorded = Recorded(
            self.writer, losses, traced.links, traced.names, RecordedRulesets()
        )
        self._recorded.begin(
            {
                "about": "recording",
                "version": VERSION,
                "stories": traced.stories,
                "stream": stream_head(stream, self.identity, status),
                "patience_ns": self.stories.patience_ns,
                "count": self.count,
                "snaplen": self.snaplen if traced.stories else 0,
                "filter": self.expression or None,
            }
        )

    def view(self, traced: Traced) -> LinkEvents:
        """A view that writes what it takes."""
        recorded = self._recorded
        assert recorded
        if not traced.stories:
            return LinesRecordView(
                recorded, traced.story_names(), traced.names, traced.links.ids, self.count
            )
        return RecordView(
            recorded,
            self.stories,
            traced.story_names(),
            traced.links.ids,
            self.count,
            clear=traced.line.clear,
        )

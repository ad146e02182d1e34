# SPDX-License-Identifier: GPL-2.0
"""``ipttctl export``: recordings as files of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ipttctl.cli.file_names import file_named
from ipttctl.cli.groups import grouped
from ipttctl.cli.kept_options import KeptFile, KeptOptions, KeptSinceOption
from ipttctl.cli.packets_file import check_packets, write_packets
from ipttctl.cli.printing import note
from ipttctl.cli.signals import interrupt, interrupted_by
from ipttctl.errors import UsageError
from ipttctl.numbers import counted
from ipttctl.recordings.reader import Recording
from ipttctl.recordings.tables import check_parquet, parquet_of, write_parquet


@grouped
def export(
    *,
    file: KeptFile = None,
    kept: KeptOptions,
    since: KeptSinceOption = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            "--parquet",
            metavar="DIR",
            parser=file_named,
            help="a file of Parquet for each table, in this directory",
        ),
    ] = None,
    pcapng: Annotated[
        Path | None,
        typer.Option(
            "--pcapng",
            metavar="FILE",
            parser=file_named,
            help="the packets, each with its story as a comment, for Wireshark and tshark",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that are there")] = False,
) -> None:
    """Make files for other programs of a recording: Parquet of its tables, pcapng of its packets.

    The tables are those of `ipttctl query`, which reads such directories too: events, stories,
    steps, drops, links and hosts, with the columns of docs/recordings.md. pyarrow writes them,
    which must be installed with ipttctl[fleet].

    Packets are those of which `ipttctl record --snaplen` kept the first bytes. Events do not have
    all that headers have, and headers are not made up: without --snaplen there are no packets.

    With --hub the tables are made of what the hub of a fleet keeps, from --since on (1h). It keeps
    no packets.

    The files are readable by their owner only. They have their names once they are whole: until
    then those that --force replaces stay.
    """
    if parquet is None and pcapng is None:
        raise UsageError("nothing is to be made", "use --parquet or --pcapng")
    kept.check()
    # what was begun is tidied away, however it is ended
    with interrupted_by(interrupt):
        if kept.hub:
            _export_kept(kept, file, since, parquet, pcapng, force=force)
            return
        if file is None:
            raise UsageError("no recording is given", "ipttctl export FILE ...")
        if since is not None:
            raise UsageError("--since is of what a hub keeps", "add --hub")
        _export(Recording.open(file), parquet, pcapng, force=force)


def _export(
    recording: Recording, parquet: Path | None, pcapng: Path | None, *, force: bool
) -> None:
    # neither is made if the other one cannot be
    if pcapng is not None:
        check_packets(recording, pcapng, replace=force)
    if parquet is not None:
        check_parquet(parquet, replace=force, read=recording.path)
    if pcapng is not None:
        count = write_packets(recording, pcapng, replace=force)
        note(f"{pcapng}: {counted(count, 'packet')}")
    if parquet is not None:
        _tell_rows(parquet, write_parquet(recording, parquet, replace=force))
    for sentence in recording.damage.sentences(recording.path):
        note(sentence)


def _export_kept(
    kept: KeptOptions,
    file: Path | None,
    since: str | None,
    parquet: Path | None,
    pcapng: Path | None,
    *,
    force: bool,
) -> None:
    if pcapng is not None or parquet is None:
        raise UsageError("the hub keeps no bytes of packets", "leave out --pcapng")
    write = kept.writer([str(file)] if file else [], since, note)
    _tell_rows(parquet, parquet_of(write, parquet, replace=force))


def _tell_rows(directory: Path, rows: Mapping[str, int]) -> None:
    note(f"{directory}: {', '.join(f'{count} {name}' for name, count in rows.items())}")

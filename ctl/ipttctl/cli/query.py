# SPDX-License-Identifier: GPL-2.0
"""``ipttctl query``: questions on recordings, in SQL or ready."""

from __future__ import annotations

import csv
import enum
import io
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ipttctl.cli.durations import seconds
from ipttctl.cli.file_names import file_named
from ipttctl.cli.groups import grouped
from ipttctl.cli.kept_options import LONGEST, SINCE, KeptOptions
from ipttctl.cli.printing import lines, note
from ipttctl.errors import UsageError
from ipttctl.escape import Escaped, escape
from ipttctl.options import Option
from ipttctl.recordings.columns import TABLES
from ipttctl.recordings.memory_bound import bounded_memory
from ipttctl.recordings.query import Answer, Database, Row
from ipttctl.recordings.ready import READY
from ipttctl.recordings.statements import check_statement, lists_views, named_in
from ipttctl.recordings.tables import in_memory, tables_of, without_rows
from ipttctl.show.render_json import dumps


class Form(enum.StrEnum):
    """Output formats of tables."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, kw_only=True)
class ReadyOptions:
    """The options that choose a query that is ready (see ``ipttctl.options``)."""

    drops_by_rule: Annotated[bool, Option(READY[0].option, READY[0].help)] = False
    drops_by_flow: Annotated[bool, Option(READY[1].option, READY[1].help)] = False
    top_talkers: Annotated[bool, Option(READY[2].option, READY[2].help)] = False
    ends: Annotated[bool, Option(READY[3].option, READY[3].help)] = False
    rules_by_matches: Annotated[bool, Option(READY[4].option, READY[4].help)] = False

    def sql(self) -> str | None:
        """The query that is chosen; None if none is.

        Raises:
            UsageError: several are.
        """
        chosen = [
            ready for ready, one in zip(READY, fields(self), strict=True) if getattr(self, one.name)
        ]
        if len(chosen) > 1:
            both = " and ".join(one.option for one in chosen[:2])
            raise UsageError(f"{both} exclude each other")
        return chosen[0].sql if chosen else None


@grouped
def query(
    *,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SELECT] [FILE...]",
            help="a statement of SQL unless a query is chosen by an option, and recordings, or "
            "directories of Parquet",
        ),
    ] = None,
    ready: ReadyOptions,
    kept: KeptOptions,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="of the last 30s, 10m, 1h...; with ready queries or --hub",
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option("-o", "--output", help="text for people, json or csv for programs")
    ] = Form.TEXT,
) -> None:
    """Ask recordings a question: in SQL, or one of those that are ready.

    The views are events, stories, steps, drops, links and hosts; docs/recordings.md has their
    columns. DuckDB answers, which must be installed with ipttctl[fleet]. It reaches neither other
    files nor the network, and its settings cannot be changed. No root is needed.

    With --hub it is asked what the hub of a fleet keeps, from --since on (1h), instead of
    recordings. What a bound leaves out, it says.

    Recordings are read anew each time. For those that are asked often, `ipttctl export --parquet`
    makes a directory that is read much faster. Parts that are damaged are passed over, which it
    says.

    Times are UTC.
    """
    kept.check()
    chosen = ready.sql()
    if kept.hub and since is None:
        since = SINCE
    if chosen is not None:
        statement, files = chosen.format(since=since_condition(since)), arguments or []
    elif arguments:
        statement, *files = arguments
        if since is not None and not kept.hub:
            raise UsageError("--since is of ready queries", "write WHERE time >= ...")
    else:
        raise UsageError("nothing is asked", "ipttctl query 'SELECT ...' FILE...")
    # what cannot be asked is told before recordings are read, which takes long
    check_statement(statement)
    names, paths = named_in(statement), [file_named(one) for one in files]
    if kept.hub:
        tables = in_memory(kept.writer(files, since, note), names)
    elif paths:
        tables = tables_of(paths, names, note)
    else:
        raise UsageError("no recording is given", "ipttctl query 'SELECT ...' FILE...")
    if lists_views(statement):
        tables = {**without_rows(TABLES), **tables}
    database = Database(tables)
    try:
        with bounded_memory():
            # they are escaped there: a value may be in quotes over several lines
            for block in _FORMS[form](database.ask(statement)):
                lines(block)
    finally:
        database.close()


def since_condition(text: str | None) -> str:
    """The condition on the column of times."""
    if text is None:
        return "true"
    begin = time.time() - seconds("--since", text, LONGEST)
    moment = datetime.fromtimestamp(begin, UTC).replace(tzinfo=None)
    return f"time >= TIMESTAMP '{moment.isoformat(sep=' ', timespec='microseconds')}'"


def _json(answer: Answer) -> Iterator[Iterable[str]]:
    names = _keys(answer.columns)
    for block in answer.blocks:
        yield (dumps(dict(zip(names, map(_plain, row), strict=True))) for row in block)


def _keys(columns: Sequence[str]) -> list[str]:
    """A key for each column: of those with the same name all but the first get a number."""
    taken = set(columns)
    found: dict[str, None] = {}
    for name in columns:
        key, number = name, 0
        while key in found or (number and key in taken):
            number += 1
            key = f"{name}_{number}"
        found[key] = None
    return list(found)


def _csv(answer: Answer) -> Iterator[Iterable[str]]:
    heads: list[Row] = [tuple(answer.columns)]
    for block in answer.blocks:
        yield map(_csv_line, heads + block)
        heads = []


def _csv_line(row: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([escape(_word(value)) for value in row])
    return text.getvalue()


def _text(answer: Answer) -> Iterator[Iterable[str]]:
    """Columns as wide as they need, numbers on the right; a later block may have wider ones."""
    if not answer.columns:
        return
    heads = [[escape(name) for name in answer.columns]]
    widths = [0] * len(answer.columns)
    for block in answer.blocks:
        cells = [*heads, *([escape(_word(value)) for value in row] for row in block)]
        widths = [
            max(before, *map(len, column))
            for before, column in zip(widths, zip(*cells, strict=True), strict=True)
        ]
        right = [_numbers(column) for column in zip(*block, strict=True)]
        yield _text_lines(cells, widths, right or [False] * len(widths))
        heads = []


def _numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values if value is not None)


def _text_lines(
    cells: list[list[Escaped]], widths: Sequence[int], right: Sequence[bool]
) -> Iterator[str]:
    for row in cells:
        parts = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, right, strict=True)
        ]
        yield "  ".join(parts).rstrip()


_FORMS = {Form.TEXT: _text, Form.JSON: _json, Form.CSV: _csv}


def _word(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return plain if isinstance(plain, str) else dumps(plain)


def _plain(value: Any) -> Any:
    """A value of DuckDB as one of JSON."""
    found: Any
    match value:
        case None | bool() | int() | str():
            found = value
        case float():
            found = value if math.isfinite(value) else None
        case datetime():
            found = value.isoformat(sep=" ", timespec="microseconds")
        case bytes():
            found = value.hex()
        case list() | tuple():
            found = [_plain(one) for one in value]
        case dict():
            found = {str(key): _plain(one) for key, one in value.items()}
        case _:
            found = str(value)
    return found

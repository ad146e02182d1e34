# SPDX-License-Identifier: GPL-2.0
"""Files of Parquet that are read as far as a query needs them, by columns and groups of rows.

DuckDB opens no files: it may not. It is given what Arrow reads of one that is open already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipttctl.errors import os_reason
from ipttctl.recordings.columns import SCHEMA
from ipttctl.recordings.extra import arrow, dataset, parquet
from ipttctl.recordings.reader import opened
from ipttctl.recordings.runs import Run
from ipttctl.recordings.table_maker import schema
from ipttctl.recordings.writer import RecordingError


def scanned(path: Path, table: str) -> Any:
    """A table of a file of Parquet, of which nothing but its description is read yet.

    Raises:
        RecordingError: it is none.
    """
    pa, pq, ds = arrow(), parquet(), dataset()
    wanted = schema(table)
    try:
        # by its descriptor: it is a file, and the name need not be UTF-8
        with opened(path) as file:
            source = pa.OSFile(f"/proc/self/fd/{file.fileno()}")
        found = pq.read_schema(source)
        version = (found.metadata or {}).get(b"ipttctl.schema", b"?").decode(errors="replace")
        if version != str(SCHEMA):
            raise RecordingError(
                f"{path} is of version {version} of the tables", f"{SCHEMA} is known here"
            )
        if any(found.field(one.name).type != one.type for one in wanted):
            raise KeyError(table)
        form = ds.ParquetFileFormat()
        source.seek(0)
        return ds.FileSystemDataset([form.make_fragment(source)], wanted, form)
    except OSError as error:
        raise RecordingError(f"{path}: {os_reason(error)}") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise RecordingError(f"{path} is no table of ipttctl") from error


def runs_in(directory: Path) -> list[Run]:
    """The runs that a directory of tables has something of.

    Raises:
        RecordingError: it has no table of hosts.
    """
    pa = arrow()
    path = directory / "hosts.parquet"
    table = scanned(path, "hosts")
    try:
        found = table.to_table(columns=["host", "boot_id", "run", "began", "ended"])
        times = [found.column(name).cast(pa.int64()).to_pylist() for name in ("began", "ended")]
        where = [found.column(name).to_pylist() for name in ("host", "boot_id", "run")]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordingError(f"{path} is no table of ipttctl") from error
    # of others was heard only
    return [Run(*one) for one in zip(*where, *times, strict=True) if None not in one[3:]]


def together(scans: Sequence[Any], made: Any) -> Any:
    """Tables of files and one in memory, as one."""
    if not scans:
        # a sixth of the time of a query for drops goes to the import otherwise
        return made
    ds = dataset()
    return ds.dataset([*scans, ds.dataset(made)])

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
    except (pa.ArrowException, KeyError) as error:
        raise RecordingError(f"{path} is no table of ipttctl") from error


def together(scans: Sequence[Any], made: Any) -> Any:
    """Tables of files and one in memory, as one."""
    ds = dataset()
    return ds.dataset([*scans, ds.dataset(made)]) if scans else made

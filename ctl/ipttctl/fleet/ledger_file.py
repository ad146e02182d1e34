# SPDX-License-Identifier: GPL-2.0
"""The file in which an agent notes what its stream holds, for the one that comes after it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from ipttctl.bpf.private_dirs import make_private
from ipttctl.errors import IpttctlError, os_reason
from ipttctl.fleet.ledger import MOST_NUMBER, RECENT
from ipttctl.fleet.whole_file import write_whole

MOST_ENTRIES: Final = 512
"""Most entries of a note."""

_MOST_BYTES: Final = 1 << 17
"""Most bytes of the file: more than the longest note takes."""

_Number: TypeAlias = Annotated[int, Meta(ge=0, le=MOST_NUMBER)]

# their sum has to fit into the head of a frame
_Items: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]


class LedgerNote(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of the file, which is true at the time at which it was ``written``.

    Times are seconds on CLOCK_REALTIME, since monotonic ones begin anew with the host.
    """

    created: float
    """When the stream was made: one that was removed and made again has other messages."""
    written: float
    run: str
    """The agent's."""
    known: Annotated[list[_Number], Meta(min_length=1, max_length=RECENT)]
    """The highest numbers that were taken note of; smaller ones all were."""
    unsaid: dict[Literal["events", "stories"], _Items]
    """Items that were thrown away and of which no frame that is stored says so, by kind."""
    unknown: dict[Literal["events", "stories"], _Items] = {}
    """Messages of which nobody knows what they held, and no frame of the kind says so."""
    messages: Annotated[
        list[tuple[_Number, Literal["events", "stories", "unknown"], _Items, float]],
        Meta(max_length=MOST_ENTRIES),
    ]
    """Last number, kind and items of the messages that the stream has, and when the first of them
    was sent."""


_DECODER: Final = msgspec.json.Decoder(LedgerNote)


def read_note(place: Path) -> LedgerNote | None:
    """Read a note; None if there is none.

    Raises:
        IpttctlError: the file cannot be read, or is damaged.
    """
    try:
        with place.open("rb") as opened:
            return _DECODER.decode(opened.read(_MOST_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IpttctlError(f"cannot read {place}: {os_reason(error)}") from None
    # a text that is cut or no UTF-8, too
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise IpttctlError(f"{place} is damaged: {error}") from None


def write_note(place: Path, note: LedgerNote) -> None:
    """Write a note, whole or not at all; where that fails, there is none.

    Raises:
        IpttctlError: it cannot be written.
    """
    temporary = place.with_name(f".{place.name}.tmp")
    try:
        make_private(place.parent)
        write_whole(place, temporary, msgspec.json.encode(note))
    except OSError as error:
        _remove(temporary, place)
        raise IpttctlError(f"cannot write {place}: {os_reason(error)}") from None
    except IpttctlError:
        _remove(place)
        raise


def _remove(*places: Path) -> None:
    """Remove files: by an older note something would be counted again."""
    for place in places:
        try:
            place.unlink(missing_ok=True)
        except OSError:
            continue

# SPDX-License-Identifier: GPL-2.0
"""Owners of files: each link belongs to the file of one owner, or to nobody.

The owner is a label of the link, so that it is known as long as the link is. The links of the file
without an owner have no such label; the record of apply says which these are, and it stands in for
the label where somebody replaced the labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ipttctl.errors import OtherOwnerError, UsageError
from ipttctl.link.model import Link
from ipttctl.state.journal import RecordedLink
from ipttctl.state.model import OWNER_LABEL, DeclaredLink
from ipttproto.family import limit

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]*")
_LONGEST: Final = limit("LABEL_VALUE")
_MOST_LABELS: Final = limit("MAX_LABELS")


def parse_owner(option: str, text: str | None) -> str:
    """The owner that an option names; empty without the option.

    Raises:
        UsageError: it is not spelled as an owner.
    """
    if text is not None and not (_NAME.fullmatch(text) and len(text) <= _LONGEST):
        raise UsageError(
            f"{option}: '{text}' is no name of an owner",
            f"letters, digits, '_', '.', '@', ':' and '-', {_LONGEST} characters at most",
        )
    return text or ""


def called(owner: str) -> str:
    """The file of an owner, in words."""
    return f"the file of owner '{owner}'" if owner else "the file without an owner"


def owners(links: Iterable[Link], entries: Sequence[RecordedLink]) -> dict[int, str]:
    """The owner of each link that belongs to a file, by the link's id; ``entries`` have theirs."""
    recorded = {entry.link: entry.owner for entry in entries}
    found = {link.id: link.labels.get(OWNER_LABEL, recorded.get(link.id)) for link in links}
    return {number: owner for number, owner in found.items() if owner is not None}


def plain_labels(link: Link) -> dict[str, str]:
    """The labels of a link without its owner's."""
    return {key: value for key, value in link.labels.items() if key != OWNER_LABEL}


def wanted_labels(declared: DeclaredLink, link: Link | None, owner: str) -> dict[str, str] | None:
    """All labels that a declared link is to have; None leaves those that it has.

    Raises:
        UsageError: with the owner's there are too many.
    """
    if declared.labels is None and not owner and OWNER_LABEL not in (link.labels if link else ()):
        return None
    labels: Mapping[str, str] = declared.labels or {}
    if declared.labels is None and link is not None:
        labels = plain_labels(link)
    wanted = {**labels, **({OWNER_LABEL: owner} if owner else {})}
    if len(wanted) > _MOST_LABELS:
        raise UsageError(
            f"a link of an owner has at most {_MOST_LABELS - 1} labels of its own",
            "the owner is one too",
        )
    return wanted


def other_owner(what: str, theirs: str, ours: str) -> OtherOwnerError:
    """The error for what another file declares, and so this one must not touch."""
    return OtherOwnerError(
        f"{what} belongs to {called(theirs)}, not to {called(ours)}",
        "declare it in one of them, or take it over with --take",
    )

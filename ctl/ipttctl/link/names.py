# SPDX-License-Identifier: GPL-2.0
"""Names of links, their labels, and the reasons for changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from ipttctl.errors import UsageError
from ipttctl.numbers import U32_MAX, decimal
from ipttctl.options import Option
from ipttproto.family import limit

LinkRef: TypeAlias = int | str
"""A link by its id, or by its name."""

SPELLING: Final = "begins with a letter or '_'; letters, digits, '_', '.' and '-' follow"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_LONGEST_NAME: Final = limit("LINK_NAME")
_LONGEST_KEY: Final = limit("LABEL_KEY")
_LONGEST_VALUE: Final = limit("LABEL_VALUE")
_MOST_LABELS: Final = limit("MAX_LABELS")
_LONGEST_REASON: Final = limit("REASON")


def is_name(text: str) -> bool:
    """Whether the module takes this as a link's name."""
    return len(text) <= _LONGEST_NAME and bool(_NAME.fullmatch(text))


def parse_link(text: str) -> LinkRef:
    """The link that a text means: the id if it is a number, else the name.

    Raises:
        UsageError: it is neither.
    """
    number = decimal(text, U32_MAX) if text.isascii() else None
    if number:
        return number
    if is_name(text):
        return text
    raise UsageError(
        f"'{text}' is neither the id nor the name of a link", "see `ipttctl links` for both"
    )


def parse_name(option: str, text: str) -> str:
    """The name of a link, as an option gives it.

    Raises:
        UsageError: it is not spelled as a name.
    """
    if not is_name(text):
        raise UsageError(
            f"{option}: '{text}' is no name of a link",
            f"it {SPELLING}, {_LONGEST_NAME} characters at most",
        )
    return text


def parse_labels(option: str, texts: Iterable[str]) -> dict[str, str]:
    """The labels, each given as KEY=VALUE.

    Raises:
        UsageError: one is of another form or given twice, or there are too many.
    """
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or len(key) > _LONGEST_KEY or not _NAME.fullmatch(key):
            raise UsageError(
                f"{option}: '{text}' is not KEY=VALUE",
                f"a key {SPELLING}, {_LONGEST_KEY} characters at most",
            )
        if key in labels:
            raise UsageError(f"{option}: {key} is given twice")
        labels[key] = _bounded(f"{option}: {key}", value, _LONGEST_VALUE)
    if len(labels) > _MOST_LABELS:
        raise UsageError(f"{option}: a link has at most {_MOST_LABELS} labels")
    return labels


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """The option that gives a link its labels (see ``ipttctl.options``), each as KEY=VALUE."""

    label: Annotated[
        list[str] | None,
        Option("--label", "something to note about the link; repeatable", metavar="KEY=VALUE"),
    ] = None

    @property
    def given(self) -> bool:
        """Whether the option is given."""
        return self.label is not None

    def labels(self) -> dict[str, str] | None:
        """The labels by key; None if the option is not given.

        Raises:
            UsageError: one is of another form or given twice, or there are too many.
        """
        return None if self.label is None else parse_labels("--label", self.label)


def parse_reason(option: str, text: str | None) -> str | None:
    """The reason for a change, as an option gives it; None without one.

    Raises:
        UsageError: it is too long.
    """
    return None if text is None else _bounded(option, text, _LONGEST_REASON)


def link_attributes(link: LinkRef) -> dict[str, Any]:
    """The attribute by which a request names a link."""
    return {"name": link} if isinstance(link, str) else {"link": link}


def note_attributes(labels: Mapping[str, str] | None, reason: str | None) -> dict[str, Any]:
    """The attributes for labels and for a reason; None is none of them."""
    notes: dict[str, Any] = {}
    if labels is not None:
        pairs = [{"key": key, "value": value} for key, value in labels.items()]
        notes["labels"] = {"label": pairs}
    if reason:
        notes["reason-text"] = reason
    return notes


def labels_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The labels in the attributes of a link."""
    pairs = attributes.get("labels", {}).get("label", ())
    return {pair.get("key", ""): pair.get("value", "") for pair in pairs}


def _bounded(called: str, text: str, longest: int) -> str:
    if len(text.encode(errors="surrogateescape")) > longest:
        raise UsageError(f"{called}: the text is longer than {longest} bytes")
    return text

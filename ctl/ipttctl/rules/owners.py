# SPDX-License-Identifier: GPL-2.0
"""Owners of rules: the program that wrote a rule, and what the rule is about.

kube-proxy, Docker, firewalld and others name their tables and chains after what they do, or say it
in comments. ``owners.yaml`` has an entry for each such name; a user's file comes before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from ipttctl.errors import UsageError, os_reason
from ipttctl.rules.owner_entries import OwnerEntry, read_own

USER_FILE: Final = Path("/etc/ipttctl/owners.yaml")
"""The file whose entries come before ours, if it is there."""

#: most characters of a name or comment, and of a rule's text, that patterns see
_LONGEST_NAME: Final = 256
_LONGEST_TEXT: Final = 1024
#: places remembered, and chains learnt
_MOST_PLACES: Final = 1 << 15
_MOST_CHAINS: Final = 1 << 16
#: most jumps that are followed to find out what a chain is about
_MOST_JUMPS: Final = 8

#: what a pattern looks at is the same for all rules of a chain, or a rule's own
_OF_CHAIN: Final = ("backend", "family", "table", "chain")
_OF_RULE: Final = ("comment", "text")

#: a string in quotes; the last one may be cut
_STRING: Final = r'"(?:[^"\\]|\\.)*(?:"|$)'
#: a comment in one of its forms, or another string, in which none begins
_COMMENT: Final = re.compile(
    r'(?:--|(?:^|\s))comment "((?:[^"\\]|\\.){0,256})"|--comment ([^\s"]{1,256})'
    rf"|/\* (.{{0,256}}?) \*/|{_STRING}"
)
#: what people write freely: comments, prefixes of logs, and other strings with blanks in them
_FREE: Final = re.compile(
    rf"((?<!\S)(?:(?:--)?comment|--\w*log-prefix|prefix) )?({_STRING})"
    r'|((?<!\S)--(?:comment|\w*log-prefix) )[^\s"]+|/\* .*? \*/'
)
_JUMP: Final = re.compile(r"(?:^|\s)(?:-j|-g|--jump|--goto|jump|goto) ([^\s,}]{1,256})")


@dataclass(frozen=True, slots=True)
class Place:
    """A rule, or a chain if there is no text, in a ruleset.

    ``backend`` is ``legacy``, ``iptables-nft`` or ``nft``; ``family`` is nft's name of it: ``ip``,
    ``ip6``, ``inet``, ``arp``, ``bridge``, ``netdev``. ``text`` is the rule as iptables-save or nft
    writes it. Several comments of one rule are lines of ``comment``; without any they are taken
    from the text, as the chains are that it jumps to without ``jump``.
    """

    backend: str
    family: str
    table: str
    chain: str
    text: str = ""
    comment: str = ""
    jump: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """The program that a rule belongs to, and what the rule is about.

    Both may hold text of the rule, of any bytes: escape them where they are shown.
    """

    name: str
    says: str

    def __str__(self) -> str:
        return f"{self.name}: {self.says}"


class Owners:
    """The owners of the rules of one ruleset.

    A look-up takes some microseconds; the first one of a place some tens.
    """

    def __init__(self, entries: Iterable[OwnerEntry]) -> None:
        """Look up rules among ``entries``, the first that matches."""
        self._entries = tuple(entries)
        #: rules that jump to a chain, by ``_key`` of that
        self._jumps: dict[tuple[str, ...], Place] = {}
        self._of = lru_cache(maxsize=_MOST_PLACES)(self._find)
        self._in_chain = lru_cache(maxsize=_MOST_PLACES)(self._candidates)

    @classmethod
    def load(cls, user_file: Path | None = None) -> Owners:
        """The owners that we know, after those of a user's file.

        Without ``user_file`` that is ``USER_FILE``, which may be missing.

        Raises:
            UsageError: the file cannot be read or trusted, or an entry is not valid.
        """
        if user_file is None and not _there(USER_FILE):
            return cls(read_own())
        from ipttctl.rules.owners_file import read_trusted  # noqa: PLC0415 - YAML: 20 ms

        return cls((*read_trusted(user_file or USER_FILE), *read_own()))

    def of_ruleset(self) -> Owners:
        """The owners of the rules of one ruleset, which ``learn`` tells of its jumps."""
        made = Owners(self._entries)
        made._in_chain = self._in_chain
        return made

    def learn(self, rules: Iterable[Place]) -> bool:
        """Learn what rules of the ruleset tell of the chains that they jump to.

        The chains of kube-proxy and others are hashes. Rules that jump there have comments.
        Returns whether that was new.
        """
        new = False
        for rule in rules:
            for target in _targets(rule):
                key = _key(rule, target)
                known = self._jumps.get(key)
                if known is None and len(self._jumps) >= _MOST_CHAINS:
                    continue
                if known is None or (not _comments(known) and _comments(rule)):
                    self._jumps[key] = rule
                    # what was said before may have more to it
                    self._of.cache_clear()
                    new = True
        return new

    def of(self, place: Place) -> Owner | None:
        """The owner of a rule; None if nobody is known."""
        return self._of(place)

    def _find(self, place: Place) -> Owner | None:
        found, _ = self._named(place, _MOST_JUMPS)
        if found:
            return found
        # a rule in a chain of nobody's was written by those whose chain it calls
        for target in _targets(place):
            found, _ = self._named(_chain(place, target), _MOST_JUMPS)
            if found:
                return found
        return None

    def _named(self, place: Place, jumps_left: int) -> tuple[Owner | None, bool]:
        """The owner by an entry, and whether it is only a fallback."""
        inside = {"comment": _comments(place), "text": [_without_words(place.text)]}
        for entry, chain in self._in_chain(place.backend, place.family, place.table, place.chain):
            groups = _match(entry, _OF_RULE, inside)
            if groups is None or (entry.called and not self._called(place, entry, jumps_left)):
                continue
            owner = Owner(entry.owner, entry.says.format_map({**chain, **groups}))
            if not entry.fallback:
                return owner, False
            said = self._learnt(place, owner, jumps_left)
            return said or owner, said is None
        return None, False

    def _candidates(self, *names: str) -> Sequence[tuple[OwnerEntry, Mapping[str, str]]]:
        """The entries that can match rules of a chain, with the groups of its names."""
        fields = {
            field: [name[:_LONGEST_NAME]] for field, name in zip(_OF_CHAIN, names, strict=True)
        }
        matches = ((entry, _match(entry, _OF_CHAIN, fields)) for entry in self._entries)
        return tuple((entry, groups) for entry, groups in matches if groups is not None)

    def _called(self, place: Place, entry: OwnerEntry, jumps_left: int) -> bool:
        """Whether the rule that jumps to a chain is of an entry's owner."""
        rule = self._jumps.get(_key(place, place.chain))
        if rule is None or not jumps_left:
            return False
        found, _ = self._named(rule, jumps_left - 1)
        return found is not None and found.name == entry.owner

    def _learnt(self, place: Place, owner: Owner, jumps_left: int) -> Owner | None:
        """The meaning of a chain by the rule that jumps there, if it is of the same owner."""
        rule = self._jumps.get(_key(place, place.chain))
        if rule is None or not jumps_left:
            return None
        found, fallback = self._named(rule, jumps_left - 1)
        return found if found and not fallback and found.name == owner.name else None


def _there(file: Path) -> bool:
    """Whether a file is there; one that cannot be looked at is an error.

    Raises:
        UsageError: it cannot be looked at.
    """
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"cannot read {file}: {os_reason(error)}") from None
    return True


def _key(place: Place, chain: str) -> tuple[str, ...]:
    return place.backend, place.family, place.table, chain


def _chain(place: Place, chain: str) -> Place:
    return replace(place, chain=chain, text="", comment="", jump="")


def _targets(place: Place) -> list[str]:
    """The chains that a rule may jump to, and some words that are no chains."""
    if place.jump:
        return [place.jump[:_LONGEST_NAME]]
    return _JUMP.findall(_without_words(place.text))


def _without_words(text: str) -> str:
    """The beginning of a rule's text without what people write freely in it.

    Words in a comment are no part of what the rule does.
    """
    return _FREE.sub(_emptied, text[:_LONGEST_TEXT])


def _emptied(match: re.Match[str]) -> str:
    key, string, option = match.groups()
    if string and not key and not re.search(r"\s", string):
        return string
    return f'{key or option or ""}""'


def _comments(place: Place) -> list[str]:
    """The comments of a rule, those of its text if none are given.

    Several in its text are also one.
    """
    if place.comment:
        return [line[:_LONGEST_NAME] for line in place.comment[:_LONGEST_TEXT].split("\n")]
    matches = _COMMENT.finditer(place.text[:_LONGEST_TEXT])
    comments = [
        re.sub(r"\\(.)", r"\1", match[match.lastindex])[:_LONGEST_NAME]
        for match in matches
        if match.lastindex
    ]
    return [*comments, "; ".join(comments)[:_LONGEST_NAME]] if len(comments) > 1 else comments


def _match(
    entry: OwnerEntry, looked_at: Iterable[str], fields: Mapping[str, list[str]]
) -> Mapping[str, str] | None:
    """The groups of an entry's patterns of some fields; None if one does not match."""
    groups: dict[str, str] = {}
    for field in looked_at:
        pattern = entry.patterns.get(field)
        if pattern is None:
            continue
        found = next(filter(None, map(pattern.match, fields[field])), None)
        if found is None:
            return None
        groups |= found.groupdict("")
    return groups

# SPDX-License-Identifier: GPL-2.0
"""The file of ``ipttctl apply``: the options of attach for each named link, and its maps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, overload

import yaml

from ipttctl.errors import PlaceMissingError, ProgramError, UsageError
from ipttctl.hooks import HookOptions, chosen
from ipttctl.link.names import LabelOptions
from ipttctl.programs.options import ProgramOptions
from ipttctl.programs.sources import source_text
from ipttctl.state import DeclaredLink, DeclaredMap, State
from ipttctl.state.model import about
from ipttctl.state.option_files import Options, directory_of, keep_names, parse_text, read_file
from ipttctl.system.inherited import Inherited

_LINKS: Final = "links"
_LINK: Final = "link"
_MAPS: Final = "maps"
_KEEP_MAPS: Final = "keep-maps"
_NUMBERS: Final = ("fd", "id")
#: a number in the one way that YAML prints it
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,30})")


@overload
def read_state(file: str | Path, inherited: Inherited | None = None) -> State: ...


@overload
def read_state(
    *, text: str, directory: str | Path | None = None, inherited: Inherited | None = None
) -> State: ...


def read_state(
    file: str | Path | None = None,
    inherited: Inherited | None = None,
    *,
    text: str | None = None,
    directory: str | Path | None = None,
) -> State:
    """Read the state that a YAML or JSON file declares, or the text of one.

    A ``file`` ``-`` is standard input. Paths in a file are relative to its directory, those in a
    text to ``directory``, by default the current one. ``inherited`` are the descriptors of this
    process that it may name, by default those that are open now.

    Raises:
        UsageError: it cannot be read, or something in it is not valid.
        ProgramError: it names a descriptor that is not open.
    """
    if text is None:
        return DeclaredFile.read(str(file), inherited).state()
    content, place = parse_text(text, "the text"), Path(directory or ".")
    return DeclaredFile.of("the text", content, place, inherited).state()


@dataclass(frozen=True)
class DeclaredFile:
    """The content of a file, from which its state is made as often as it is needed.

    Names of network namespaces mean those that have them when the state is made.
    """

    links: Mapping[Any, Any]
    directory: Path
    inherited: Inherited

    @classmethod
    def read(cls, file: str, inherited: Inherited | None = None) -> Self:
        """Read a file, as ``read_state`` does.

        Raises:
            UsageError: it cannot be read, or is no object of links.
        """
        return cls.of(file, read_file(file), directory_of(file), inherited)

    @classmethod
    def of(
        cls, called: str, content: Any, directory: Path, inherited: Inherited | None = None
    ) -> Self:
        """Take the content of a file that is ``called`` so.

        Raises:
            UsageError: it is no object of links.
        """
        links = content.get(_LINKS) if isinstance(content, Mapping) and len(content) == 1 else None
        if not isinstance(links, Mapping):
            raise UsageError(
                f"{called} is not an object of links", f'it begins with "{_LINKS}: NAME:"'
            )
        return cls(links, directory, inherited or Inherited.now())

    def state(self, absent: dict[str, PlaceMissingError] | None = None) -> State:
        """The state that is declared.

        Links whose network namespace or device is missing are put into ``absent`` by their names,
        each with the reason; without it they are errors.

        Raises:
            UsageError: something is not valid.
            ProgramError: a descriptor is named that is not open.
        """
        links = []
        absent_links = set()
        for name, entry in self.links.items():
            try:
                link = _read(str(name), entry, self.directory, self.inherited)
                if absent is not None:
                    with about(f"link {name}"):
                        link.hook.identity()
                links.append(link)
            except PlaceMissingError as error:
                if absent is None:
                    raise
                absent[str(name)] = error
                absent_links.add(entry.get(_LINK))
        return State(tuple(links), frozenset(absent or ()), frozenset(absent_links - {None}))


def _read(name: str, entry: Any, directory: Path, inherited: Inherited) -> DeclaredLink:
    given = Options(f"link {name}", entry, "hook: HOOK")
    where = given.group(HookOptions)
    programs = given.group(ProgramOptions)
    link = given.number(_LINK)
    labels = given.group(LabelOptions)
    maps = given.take(_MAPS) or {}
    keep = keep_names(given, _KEEP_MAPS)
    given.finish()
    if not isinstance(maps, Mapping):
        raise UsageError(f"link {name}: {_MAPS} is not an object", "each map by its name")
    try:
        return DeclaredLink(
            name,
            chosen(where, inherited),
            programs.choice(inherited).relative_to(directory),
            {str(key): _read_map(f"{_MAPS}: {key}", value) for key, value in maps.items()},
            link,
            labels=labels.labels(),
            keep_maps=keep,
        )
    except (UsageError, ProgramError) as error:
        raise type(error)(f"link {name}: {error.problem}", error.remedy) from None


def _read_map(called: str, value: Any) -> DeclaredMap:
    if isinstance(value, Mapping):
        return DeclaredMap(tuple(value.items()))
    if isinstance(value, list):
        return DeclaredMap(tuple((key, None) for key in value))
    raise UsageError(f"{called}: there are neither keys nor values", "a list or an object of them")


def state_text(state: State) -> str:
    """A state as YAML, which ``read_state`` takes as its ``text``."""
    return yaml.safe_dump(state_object(state), sort_keys=False, width=100)


def state_object(state: State) -> dict[str, Any]:
    """A state as the object in a file."""
    return {_LINKS: {link.name: _object(link) for link in state.links}}


def _object(link: DeclaredLink) -> dict[str, Any]:
    programs: dict[str, dict[str, Any]] = {}
    for slot, source in link.programs.sources.items():
        kind, text = source_text(source)
        programs.setdefault(kind, {})[slot.name.lower()] = int(text) if kind in _NUMBERS else text
    options = {
        _LINK: link.link,
        **link.hook.given(),
        **programs,
        "filter": link.programs.filter,
        "cookie": link.programs.cookie,
        "payload": link.programs.payload,
        **(link.programs.limits.given() if link.programs.limits else {}),
        "label": None if link.labels is None else dict(link.labels),
        "digest": {s.name.lower(): text for s, text in link.programs.digests.items()} or None,
        "set": {n: _constant(value) for n, value in link.programs.constants.items()} or None,
        _KEEP_MAPS: None if link.keep_maps is None else list(link.keep_maps) or True,
        _MAPS: {name: _map(content) for name, content in link.maps.items()} or None,
    }
    return {key: value for key, value in options.items() if value is not None}


def _constant(value: Any) -> Any:
    """A constant as a file has it: a number and a truth value as such."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    return value == "true" if value in ("true", "false") else value


def _map(content: DeclaredMap) -> Any:
    if content.entries and content.keys_only:
        return [_key(key) for key, _ in content.entries]
    return {_key(key): value for key, value in content.entries}


def _key(key: Any) -> Any:
    """A key in the form that objects allow: one with parts becomes JSON text, as for `map set`."""
    return json.dumps(key) if isinstance(key, dict | list) else key

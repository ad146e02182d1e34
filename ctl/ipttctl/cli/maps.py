# SPDX-License-Identifier: GPL-2.0
"""``ipttctl maps`` and ``ipttctl map``: the contents of programs' maps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from ipttctl.bpf.map_copy import copy_entries
from ipttctl.bpf.maps import Map
from ipttctl.cli.options import LinkArgument, Output, OutputOption
from ipttctl.cli.printing import lines
from ipttctl.errors import ProgramError, UsageError
from ipttctl.escape import Escaped, escape, word
from ipttctl.link.controller import Controller
from ipttctl.link.names import parse_link
from ipttctl.numbers import U32_MAX
from ipttctl.numbers import number as numbered
from ipttctl.programs import maps as link_maps
from ipttctl.show import render_json

_WHICH: Final = "map of a link, each by its name or id; or map=ID, or the path of a pinned one"
_MAP = Annotated[str, typer.Argument(metavar="LINK/NAME", help=_WHICH)]
_KEY = Annotated[str, typer.Argument(metavar="KEY", help="a number, an address, JSON, 0a:00:..")]
_VALUE = Annotated[str, typer.Argument(metavar="VALUE", help="likewise")]

_BY_ID: Final = "map="
#: a value may begin with a minus sign; options have a letter after it
_NEGATIVE: Final = {"ignore_unknown_options": True}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback()
def one_map() -> None:
    """Read and write a map that a link's programs use, while they run.

    Keys and values are written as the map's types (BTF) say, or by size if it has none.
    """


def maps(
    link: LinkArgument,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Show the maps that the programs of a link use."""
    wanted = parse_link(link)
    with Controller() as controller, link_maps.maps_of(controller.link(wanted)) as used:
        if output_form is Output.JSON:
            lines(render_json.dumps(_json(entry)) for entry in used)
        else:
            lines(map(_line, used))


@app.command("get", context_settings=_NEGATIVE)
def get(name: _MAP, key: _KEY, output_form: OutputOption = Output.TEXT) -> None:
    """Print the value of a key; in an LPM trie, the value of the longest matching prefix."""
    with _opened(name) as found:
        value = found.get(key)
        if value is None:
            raise _missing(found, key)
        _print(found, found.format.key(found.format.key_bytes(key)), value, output_form)


@app.command("set", context_settings=_NEGATIVE)
def set_value(name: _MAP, key: _KEY, value: _VALUE) -> None:
    """Set the value of a key: the next packet meets it. In a per-CPU map, set it for every CPU."""
    with _opened(name) as found:
        found.set(key, value)


@app.command("delete", context_settings=_NEGATIVE)
def delete(name: _MAP, key: _KEY) -> None:
    """Remove a key."""
    with _opened(name) as found:
        if not found.remove(key):
            raise _missing(found, key)


@app.command("dump")
def dump(name: _MAP, output_form: OutputOption = Output.TEXT) -> None:
    """Print every key with its value, one a line."""
    with _opened(name) as found:
        for key, value in found.dump():
            _print(found, key, value, output_form)


@app.command("copy")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help=_WHICH)],
    target: Annotated[str, typer.Argument(metavar="TO", help="likewise")],
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Copy all entries of a map to another, and print how many there were.

    Keys and values have to be of the same sizes. Keys that TO has already get the new values; its
    other keys stay. Programs that write to the maps meanwhile go on: what they add to FROM after an
    entry was read is not in TO (`swap --keep-maps` loses nothing).
    """
    with _opened(source) as origin, _opened(target) as copied:
        number = copy_entries(origin, copied)
        if output_form is Output.JSON:
            told = {"from": origin.info.id, "to": copied.info.id, "entries": number}
            lines([render_json.dumps(told)])
        else:
            lines([f"from={origin.info.id} to={copied.info.id} entries={number}"])


@contextmanager
def _opened(name: str) -> Iterator[Map]:
    """Open the map that LINK/NAME, map=ID or a path names.

    Raises:
        UsageError: the text is not of one of these forms.
        ProgramError: there is no such map.
    """
    if name.startswith("/"):
        with Map.from_pinned(name) as found:
            yield found
        return
    if name.startswith(_BY_ID):
        with Map.from_id(numbered("map", name.removeprefix(_BY_ID), U32_MAX, 1)) as found:
            yield found
        return
    link, slash, wanted = name.partition("/")
    if not link or not slash or not wanted:
        raise UsageError(
            f"'{name}' is not LINK/NAME, map=ID or a path",
            "see `ipttctl maps LINK` for the names",
        )

    of = parse_link(link)
    with Controller() as controller, link_maps.map_of(controller.link(of), wanted) as found:
        yield found


def _missing(found: Map, key: str) -> ProgramError:
    return ProgramError(f"map {found.name} has no key {key}", "see `ipttctl map dump`")


def _print(found: Map, key: Any, value: Any, form: Output) -> None:
    if form is Output.JSON:
        texts = render_json.dumps({"map": found.info.id, "key": key, "value": value})
    else:
        texts = Escaped(f"{escape(_text(key))}\t{escape(_text(value))}")
    lines([texts])


def _text(value: Any) -> str:
    """A value in the form that `map set` takes."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _json(used: link_maps.UsedMap) -> dict[str, Any]:
    found = used.map
    info, form = found.info, found.format
    return {
        "map": info.id,
        "name": info.name,
        "type": found.type,
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
        "flags": info.flags,
        "key_type": str(form.key_type) if form.key_type else None,
        "value_type": str(form.value_type) if form.value_type else None,
        "slots": [slot.name.lower() for slot in used.slots],
    }


def _line(used: link_maps.UsedMap) -> str:
    """A map on one line, as links are."""
    found = used.map
    info, form = found.info, found.format
    fields = [f"map={info.id}", f"name={word(info.name)}", f"type={found.type}"]
    for name, size, kind in (
        ("key", info.key_size, form.key_type),
        ("value", info.value_size, form.value_type),
    ):
        fields.append(f"{name}={size}" + (f"({kind})" if kind else ""))
    slots = ",".join(slot.name.lower() for slot in used.slots)
    return " ".join([*fields, f"entries={info.max_entries}", f"slots={slots}"])

# SPDX-License-Identifier: GPL-2.0
"""Mistakes that msgspec finds in what somebody wrote, as sentences with a key and its line."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import msgspec.inspect
import yaml

from ipttctl.fleet.spellings import SENTENCES

_AT: Final = re.compile(r"(.*?)(?: - at (`key` in )?`\$(.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_PATTERN: Final = re.compile(r"Expected `str` matching regex (.*)")
_ENUMERATION: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)

#: msgspec does not name the keys of a dictionary
_ANY: Final = "[...]"
_TOKEN: Final = re.compile(r"\[(?:\.\.\.|[0-9]+)\]|[^.\[]+")
_PLACE: Final = re.compile(r"\[([0-9]+)\]")
#: what can be behind a key in a path
_ENDS: Final = ("", ".", "[")


class Mistake(NamedTuple):
    """A mistake: the path of the key that it is about, empty for several keys, and a sentence."""

    path: str
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        """The key and the sentence."""
        return f"{self.path}: {self.sentence}" if self.path else self.sentence

    def inside(self, path: str) -> Mistake:
        """The same mistake, in the object at another path."""
        return self._replace(path=f"{path}.{self.path}".removesuffix("."))


def explain(error: msgspec.ValidationError, kind: Any, content: Any) -> Mistake:
    """The mistake that an error of converting ``content`` tells."""
    found = _AT.fullmatch(str(error))
    assert found is not None
    message, of_key, path = found[1], bool(found[2]), (found[3] or "").removeprefix(".")
    for words, sentence in ((_UNKNOWN, "there is no such key"), (_MISSING, "the key is missing")):
        if key := words.fullmatch(message):
            around = _named(path, error, kind, content)
            return Mistake(f"{around}.{key[1]}".removeprefix("."), sentence)
    sentence = message[:1].lower() + message[1:]
    if pattern := _PATTERN.fullmatch(message):
        sentence = SENTENCES.get(ast.literal_eval(pattern[1]), sentence)
    elif value := _ENUMERATION.fullmatch(message):
        known = _values(msgspec.inspect.type_info(kind), path)
        sentence = f"there is no {value[1]}; there are: {', '.join(known)}"
    return Mistake(_named(path + _ANY if of_key else path, error, kind, content), sentence)


def where(root: yaml.Node | None, path: str) -> str:
    """The line of a key, or of the object around it; what an alias names has only one."""
    line = None
    node = root
    while path and node is not None:
        node, mark, path = _step(node, path)
        line = mark.line + 1 if mark else line
    return f", line {line}" if line else ""


def _step(node: yaml.Node, path: str) -> tuple[yaml.Node | None, yaml.Mark | None, str]:
    """The node of the first key of a path, where it is, and the rest of the path."""
    if isinstance(node, yaml.MappingNode):
        keys = [(key, value) for key, value in node.value if _begins(path, key)]
        if keys:
            # keys of dictionaries can have dots
            key, value = max(keys, key=lambda pair: len(pair[0].value))
            return value, key.start_mark, path.removeprefix(key.value).removeprefix(".")
    elif isinstance(node, yaml.SequenceNode) and (found := _PLACE.match(path)):
        value = node.value[int(found[1])]
        return value, value.start_mark, path[found.end() :].removeprefix(".")
    return None, None, ""


def _begins(path: str, key: yaml.Node) -> bool:
    """Whether a path begins with a key."""
    name = key.value if isinstance(key, yaml.ScalarNode) else ""
    return bool(name) and path.startswith(name) and path[len(name) :][:1] in _ENDS


def _named(path: str, error: msgspec.ValidationError, kind: Any, content: Any) -> str:
    """A path with the key of a dictionary in it, which is found by trying each alone."""
    before, any_key, behind = path.partition(_ANY)
    if not any_key:
        return path
    places = [_place(token) for token in _TOKEN.findall(before)]
    found = content
    for place in places:
        found = found[place]
    for key, value in found.items():
        alone = _replaced(content, places, {key: value})
        try:
            msgspec.convert(alone, kind)
        except msgspec.ValidationError as other:
            if str(other) == str(error):
                return f"{before}.{key}{behind}".removeprefix(".")
    return path


def _place(token: str) -> str | int:
    """The key of an object, or the index of a list."""
    found = _PLACE.fullmatch(token)
    return int(found[1]) if found else token


def _replaced(content: Any, places: list[str | int], value: Any) -> Any:
    """A copy of a content in which another value is at a place."""
    if not places:
        return value
    first, *rest = places
    copied: Any = dict(content) if isinstance(content, Mapping) else list(content)
    copied[first] = _replaced(content[first], rest, value)
    return copied


def _values(kind: msgspec.inspect.Type, path: str) -> list[str]:
    """The values that a text at a path can have."""
    for token in _TOKEN.findall(path):
        kind = _below(kind, token)
    if isinstance(kind, msgspec.inspect.DictType):
        kind = kind.key_type
    kind = _of(kind, msgspec.inspect.LiteralType)
    return [str(value) for value in getattr(kind, "values", ())]


def _below(kind: msgspec.inspect.Type, token: str) -> msgspec.inspect.Type:
    """The type of what is at a key or an index."""
    known = (msgspec.inspect.StructType, msgspec.inspect.ListType, msgspec.inspect.DictType)
    match _of(kind, *known):
        case msgspec.inspect.StructType(fields=fields):
            return next(field.type for field in fields if field.encode_name == token)
        case msgspec.inspect.ListType(item_type=item):
            return item
        case msgspec.inspect.DictType(value_type=value):
            return value
        case other:
            return other


def _of(kind: msgspec.inspect.Type, *wanted: type) -> msgspec.inspect.Type:
    """The one of a union's types that is of a wanted class."""
    types = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return next((one for one in types if isinstance(one, wanted)), kind)

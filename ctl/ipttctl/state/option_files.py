# SPDX-License-Identifier: GPL-2.0
"""Options in files: YAML or JSON objects whose keys are the long names of a command's options.

The values are those of the option on the command line: text or a number; a list of these for an
option that can be repeated; an object for ``SLOT=VALUE``.
"""

from __future__ import annotations

import enum
import json
import re
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import UnionType
from typing import Any, Final, TextIO, TypeVar, get_args, get_origin

import yaml

from ipttctl.errors import UsageError, os_reason
from ipttctl.numbers import U32_MAX
from ipttctl.options import GroupedOption, options_of
from ipttctl.yaml_text import Document, StrictConstructor, parse

STANDARD_INPUT: Final = "-"
#: the option whose values have types of their own
_CONSTANTS: Final = "set"
#: most characters of a file; devices such as /dev/zero have no end
_LONGEST: Final = 1 << 26
_MOST_DIGITS: Final = 40

_T = TypeVar("_T")


class _Loader(StrictConstructor, yaml.SafeLoader):
    """A YAML loader that takes plain texts literally: no 10:20 in base 60, no ``on`` for true."""

    yaml_implicit_resolvers: Final = {}  # type: ignore[misc]  # an attribute of the class

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """The text of a node; a NUL or a lone surrogate in it is an error."""
        text = super().construct_scalar(node)
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
            raise yaml.constructor.ConstructorError(
                None, None, "a text has a NUL or half a character in it", node.start_mark
            )
        return text

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """The number of a node; one with too many digits is an error."""
        if len(node.value) > _MOST_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, "a number is too long", node.start_mark
            )
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _kind, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?", "-+0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})$"), list(_first)
    )


def read_text(file: str, option: str = "") -> str:
    """Read a text file; ``-`` is standard input.

    Raises:
        UsageError: it cannot be read, is too long, or is no text.
    """
    prefix = f"{option}: " if option else ""
    try:
        with (
            nullcontext(_standard_input())
            if file == STANDARD_INPUT
            else Path(file).open() as opened
        ):
            text = opened.read(_LONGEST + 1)
    except OSError as error:
        raise UsageError(f"{prefix}cannot read {file}: {os_reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{prefix}{file} is no text in UTF-8: {error.reason}") from None
    if len(text) > _LONGEST:
        raise UsageError(f"{prefix}{file} is longer than {_LONGEST} characters")
    return text


def read_file(file: str, option: str = "") -> Any:
    """Read the content of a YAML or JSON file; ``-`` is standard input.

    Raises:
        UsageError: it cannot be read, or is neither YAML nor JSON.
    """
    prefix = f"{option}: " if option else ""
    return parse_text(read_text(file, option), f"{prefix}{file}")


def parse_text(text: str, called: str) -> Any:
    """The content of a YAML or JSON text; ``called`` names it in error messages.

    Raises:
        UsageError: it is neither, or a key is there twice.
    """
    return parse_document(text, called).content


def parse_document(text: str, called: str) -> Document:
    """Parse a YAML or JSON text; ``called`` names it in error messages.

    Raises:
        UsageError: it is neither, or a key is there twice.
    """
    return parse(text, called, _Loader)


def _standard_input() -> TextIO:
    """Standard input, left open by the end of the block.

    Raises:
        OSError: standard input is closed.
    """
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return sys.stdin


def directory_of(file: str) -> Path:
    """The directory that a file's paths are relative to; for standard input, the current one."""
    return Path() if file == STANDARD_INPUT else Path(file).absolute().parent


class Options:
    """An object in a file. Keys taken out of it are known; any left over are an error."""

    def __init__(self, called: str, given: Any, example: str) -> None:
        """Take ``given``; error messages begin with ``called``.

        Raises:
            UsageError: ``given`` is not an object.
        """
        if not isinstance(given, Mapping):
            raise UsageError(f"{called} is not an object", f'it begins with "{example}"')
        self.called = called
        self._left = dict(given)
        self._known: list[str] = []

    def group(self, kind: type[_T]) -> _T:
        """A group of options (see ``ipttctl.options``).

        Raises:
            UsageError: a value is not valid.
        """
        values = {
            given.field: self._value(given)
            for given in options_of(kind)
            if self.has(given.option.key)
        }
        return kind(**values)

    def has(self, key: str) -> bool:
        """Whether a key is present; it is known from now on."""
        self._known.append(key)
        return key in self._left

    def take(self, key: str) -> Any:
        """The value of a key as in the file; None if it is missing."""
        return self._left.pop(key) if self.has(key) else None

    def text(self, key: str, what: str) -> str:
        """The value of a required key that is a text or a number; ``what`` describes it."""
        value = self.take(key)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UsageError(f"{self.called}: {key} is not {what}")
        return str(value)

    def number(self, key: str, *, minimum: int = 1, maximum: int = U32_MAX) -> int | None:
        """The value of a key that is a number."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise UsageError(f"{self.called}: {key} is not a number from {minimum} on")
        return value

    def finish(self) -> None:
        """Check that no key is left.

        Raises:
            UsageError: there is an unknown key.
        """
        if self._left:
            known = ", ".join(dict.fromkeys(self._known))
            raise UsageError(
                f"{self.called}: there is no key '{next(iter(self._left))}'", f"there are: {known}"
            )

    def _value(self, given: GroupedOption) -> Any:
        key, wanted = given.option.key, given.type
        choices = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
        if int in choices:
            low, high = given.option.minimum, given.option.maximum
            return self.number(key, minimum=low or 0, maximum=U32_MAX if high is None else high)
        value = self._left.pop(key)
        if any(get_origin(choice) is list for choice in choices):
            return self._texts(key, value)
        if wanted is bool:
            if not isinstance(value, bool):
                raise UsageError(f"{self.called}: {key} is neither true nor false")
            return value
        texts = self._texts(key, value)
        if len(texts) != 1:
            raise UsageError(f"{self.called}: {key} takes one value")
        names = next((c for c in choices if isinstance(c, type) and issubclass(c, enum.Enum)), None)
        if names is None:
            return texts[0]
        known = [str(member.value) for member in names]
        if texts[0] not in known:
            raise UsageError(f"{self.called}: {key} is one of {', '.join(known)}, not {texts[0]}")
        return names(texts[0])

    def _texts(self, key: str, value: Any) -> list[str]:
        """The values of an option; an object gives KEY=VALUE for each of its members."""
        if isinstance(value, Mapping):
            return [f"{name}={self._part(key, part)}" for name, part in value.items()]
        return [self._scalar(key, part) for part in (value if isinstance(value, list) else [value])]

    def _part(self, key: str, value: Any) -> str:
        """The value in KEY=VALUE; of a constant also a truth value, and JSON."""
        if key == _CONSTANTS and isinstance(value, bool | list | Mapping):
            return json.dumps(value)
        return self._scalar(key, value)

    def _scalar(self, key: str, value: Any) -> str:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UsageError(f"{self.called}: {key}: {value!r} is neither text nor a number")
        return str(value)


def keep_names(given: Options, key: str) -> tuple[str, ...] | None:
    """The names of maps to keep: none are all of them; None keeps no maps.

    Raises:
        UsageError: the value is neither true, false nor names.
    """
    if not given.has(key):
        return None
    value = given.take(key)
    if isinstance(value, bool):
        return () if value else None
    names = value.split(",") if isinstance(value, str) else value
    names = names if isinstance(names, list) else [None]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"{given.called}: {key} is neither true nor a list of maps' names")
    return tuple(names)

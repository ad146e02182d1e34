# SPDX-License-Identifier: GPL-2.0
"""Values of dataclasses as objects of JSON, and back: what is read is checked against the fields.

Bytes are texts in which those that are not UTF-8 are lone surrogates.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ipttctl.frames.head import FrameError

T = TypeVar("T")

_MOST_NUMBER = 2**64 - 1


def to_object(value: Any) -> Any:
    """A value of JSON for a dataclass, tuple, text, number or bytes."""
    if is_dataclass(value):
        return {one.name: to_object(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple):
        return [to_object(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return value


def from_object(kind: type[T], value: object) -> T:
    """A dataclass of an object; what older recordings do not have is its default.

    Raises:
        FrameError: the object has not the fields of the dataclass, or values of other types.
    """
    if not isinstance(value, Mapping):
        raise FrameError(f"a recorded {kind.__name__} is no object")
    hints = _hints(kind)  # type: ignore[arg-type]  # types can be hashed
    try:
        return kind(
            **{
                name: _checked(hint, value[name])
                for name, hint in hints.items()
                if name in value or name not in _later(kind)  # type: ignore[arg-type]  # see above
            }
        )
    except KeyError as error:
        raise FrameError(f"a recorded {kind.__name__} lacks {error}") from error


def member(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    """A member of an object, of a type.

    Raises:
        FrameError: there is none, or one of another type.
    """
    if name not in value:
        raise FrameError(f"a recorded object lacks '{name}'")
    return _checked(kind, value[name])


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


@cache
def _later(kind: Any) -> frozenset[str]:
    """The fields that were added later: those with None for a default."""
    return frozenset(one.name for one in fields(kind) if one.default is None)


def _checked(kind: Any, value: Any) -> Any:
    if get_origin(kind) is types.UnionType:
        if value is None:
            return None
        [kind] = [one for one in get_args(kind) if one is not types.NoneType]
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_checked(get_args(kind)[0], one) for one in value)
    if kind is bytes and isinstance(value, str):
        try:
            return value.encode(errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise FrameError("a recorded name has characters that no name has") from error
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        if -1 <= value <= _MOST_NUMBER:
            return value
    elif kind in {str, bool} and isinstance(value, kind):
        return value
    elif is_dataclass(kind) and isinstance(kind, type):
        return from_object(kind, value)
    raise FrameError("a recorded object has a value of another type than it should")

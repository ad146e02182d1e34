# SPDX-License-Identifier: GPL-2.0
"""Groups of options shared by commands: a dataclass is one parameter of each command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from ipttctl.options import Option

_R = TypeVar("_R")


def grouped(command: Callable[..., _R]) -> Callable[..., _R]:
    """Wrap ``command`` for typer, with the options of its groups spelled out.

    A parameter of ``command`` annotated with a dataclass stands for one option per field. Each
    field is annotated with an ``Option``, or with typer's own object.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[name] = kind
            parameters += _options(kind)
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)
            )

    def run(**values: Any) -> _R:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return command(**values)

    signature = inspect.Signature(parameters)
    run.__name__, run.__doc__, run.__module__ = (
        command.__name__,
        command.__doc__,
        command.__module__,
    )
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads it
    return run


def _options(kind: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=_annotation(hints[field.name]),
        )


def _annotation(annotation: Any) -> Any:
    """An annotation in the form that typer expects."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *notes = get_args(annotation)
    return Annotated[kind, *map(_typer_option, notes)]


def _typer_option(note: Any) -> Any:
    if not isinstance(note, Option):
        return note
    return typer.Option(
        note.name, metavar=note.metavar, help=note.help, min=note.minimum, max=note.maximum
    )


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return inspect.Parameter.empty if field.default_factory is MISSING else field.default_factory()

# SPDX-License-Identifier: GPL-2.0
"""Groups of options shared by commands: a dataclass is one parameter of each command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from ipttctl.options import options_of

_R = TypeVar("_R")


def grouped(command: Callable[..., _R]) -> Callable[..., _R]:
    """Wrap ``command`` for typer, with the options of its groups spelled out.

    A parameter of ``command`` annotated with a dataclass of options (see ``ipttctl.options``)
    stands for these.
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
    defaults = {field.name: _default(field) for field in fields(kind)}
    for given in options_of(kind):
        option = given.option
        names = [option.name] if option.short is None else [option.short, option.name]
        typers = typer.Option(
            *names,
            metavar=option.metavar,
            help=option.help,
            min=option.minimum,
            max=option.maximum,
            hidden=option.hidden,
        )
        yield inspect.Parameter(
            given.field,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults[given.field],
            annotation=Annotated[given.type, typers],
        )


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return inspect.Parameter.empty if field.default_factory is MISSING else field.default_factory()

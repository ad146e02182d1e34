# SPDX-License-Identifier: GPL-2.0
"""Everything that the signatures of public names mention is public too.

Annotations are followed as text: each name in them is looked up where it is written, so that names
of unions count, and what is imported for type checkers alone.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import ipttctl
from ipttctl.link.async_controller import AsyncController
from ipttctl.link.controller import Controller

OURS = ("ipttctl", "ipttproto")
ALL = getattr(ipttctl, "__all__")  # noqa: B009 - the stub has none
PUBLIC = {name: getattr(ipttctl, name) for name in ALL}


class Named(NamedTuple):
    """A name, and the module that has it."""

    module: str
    name: str


@cache
def scope(module: ModuleType) -> dict[str, Named]:
    """The names that a file of ours imports from our files or defines, and where they live."""
    names: dict[str, Named] = {}
    tree = ast.parse(Path(str(module.__file__)).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            for alias in node.names:
                names[alias.asname or alias.name] = Named(str(node.module), alias.name)
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = Named(module.__name__, name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                names[name] = Named(module.__name__, name)
    return names


def mentioned(module: ModuleType, annotation: str) -> Iterator[Named]:
    """Our names in an annotation of a file; those of third parties are theirs to publish."""
    found = scope(module)
    for node in ast.walk(ast.parse(annotation, mode="eval")):
        match node:
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield from mentioned(module, text)
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if is_module(found.get(name)):
                yield Named(".".join(found[name]), attr)
            case ast.Name(id=name) if name in found and not is_module(found[name]):
                # numpy's names come from there
                if found[name].module != "ipttproto.arrays":
                    yield found[name]


def is_module(name: Named | None) -> bool:
    return name is not None and ".".join(name) in sys.modules


def value_of(name: Named) -> Any:
    return getattr(import_module(name.module), name.name)


def definition(name: Named) -> str | None:
    """The text of an alias of types; None for a class."""
    if inspect.isclass(value_of(name)):
        return None
    tree = ast.parse(Path(str(import_module(name.module).__file__)).read_text())
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=found)], value=value)
                | ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value)
            ) if found == name.name:
                return ast.unparse(value)
    # imported from where it lives
    return definition(scope(import_module(name.module))[name.name])


def annotated(value: Any) -> Iterator[tuple[ModuleType, str]]:
    """The annotations of a function, or of a class: its members and its methods, inherited too."""
    functions = [value]
    if inspect.isclass(value):
        functions = []
        for base in value.__mro__:
            if base.__module__.split(".")[0] in OURS:
                own = inspect.get_annotations(base)
                members = {name: text for name, text in own.items() if not name.startswith("_")}
                yield from texts(sys.modules[base.__module__], members)
                functions += [
                    member
                    for name, member in vars(base).items()
                    if not name.startswith("_") or name in {"__init__", "__iter__", "__aiter__"}
                ]
    for function in functions:
        plain = getattr(function, "fget", getattr(function, "func", function))
        plain = inspect.unwrap(getattr(plain, "__func__", plain))
        if inspect.isfunction(plain) and plain.__module__.split(".")[0] in OURS:
            yield from texts(sys.modules[plain.__module__], plain.__annotations__)


def texts(module: ModuleType, found: Mapping[str, Any]) -> Iterator[tuple[ModuleType, str]]:
    """The annotations that name something; those of tuples with names are texts in an object."""
    for annotation in found.values():
        text = getattr(annotation, "__forward_arg__", annotation)
        if text is not None:
            yield module, text


def not_public(values: Iterable[Any]) -> set[str]:
    """The names that the signatures of public values mention, and that are not public."""
    missing, known = set(), set()
    left = [place for value in values for place in annotated(value)]
    while left:
        for name in mentioned(*left.pop()):
            there = value_of(name)
            if name in known or isinstance(there, TypeVar):
                continue
            known.add(name)
            if PUBLIC.get(name.name) is not there:
                missing.add(".".join(name))
            alias = definition(name)
            left += annotated(there)
            left += [(import_module(name.module), alias)] if alias else []
    return missing


def test_all_that_signatures_mention_is_public() -> None:
    assert not_public(PUBLIC.values()) == set()


def test_what_is_not_public_would_be_found() -> None:
    """A name of an annotation, of a member, of a union and of a method."""

    class Example:
        """Annotated as files are that are read."""

        def method(self) -> None:
            """Mention types."""

    module = import_module("ipttctl.link.losses")
    Example.__module__ = module.__name__
    Example.__annotations__ = {"member": "LossCounter"}
    Example.method.__module__ = module.__name__
    Example.method.__annotations__ = {"x": "Mapping[str, _Stream | None]", "return": "Losses"}
    assert not_public([Example]) == {
        "ipttctl.link.losses.LossCounter",
        "ipttctl.link.losses._Stream",
    }


def test_both_controllers_have_the_same_verbs() -> None:
    """A verb of the one is a line in the other: ``name = _verb(Controller.name)``."""
    verbs = {
        name: method
        for name, method in inspect.getmembers(Controller, inspect.isfunction)
        if not name.startswith("_")
    }
    coroutines = {
        name: method
        for name, method in vars(AsyncController).items()
        if inspect.iscoroutinefunction(method) and not name.startswith("_")
    }
    assert coroutines.keys() == verbs.keys()
    for name in verbs.keys() - {"close"}:
        assert inspect.signature(coroutines[name]) == inspect.signature(verbs[name]), name
        assert coroutines[name].__doc__ == verbs[name].__doc__
    assert inspect.signature(AsyncController) == inspect.signature(Controller)

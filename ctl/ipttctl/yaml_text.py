# SPDX-License-Identifier: GPL-2.0
"""YAML texts, read within bounds: a key is there once, and a small file does not become large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import yaml

from ipttctl.errors import UsageError

#: most levels of objects and lists; all that read the content, and the parser itself, recurse
_DEEPEST: Final = 100
#: most that aliases repeat, in characters, of which each value has some of its own
_MOST_REPEATED: Final = 1 << 20
_OF_EACH: Final = 8

#: what values of a tag that they do not fit raise, such as ``!!int x``
_NO_VALUE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class StrictConstructor(yaml.constructor.BaseConstructor):
    """A part of loaders, which stands before them: each key of an object is there once."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node; one that does not fit its tag is an error."""
        try:
            return super().construct_object(node, deep=deep)
        except _NO_VALUE:
            raise yaml.constructor.ConstructorError(
                None, None, "this is no value of its tag", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The object of a node; a duplicate key is an error."""
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            seen = set()
            for key, _ in node.value:
                value = self.construct_object(key, deep=True)
                if value in seen:
                    raise yaml.constructor.ConstructorError(
                        None,
                        None,
                        f"the key '{value}' is there twice in one object",
                        key.start_mark,
                    )
                seen.add(value)
        return found


@dataclass(frozen=True)
class Document:
    """The content of a text, and the nodes that it is made of, which have their lines."""

    content: Any
    root: yaml.Node | None


def parse(
    text: str,
    called: str,
    loader: type[yaml.SafeLoader | yaml.BaseLoader],
    form: str = "neither YAML nor JSON",
) -> Document:
    """Parse a text; ``called`` names it in errors, ``form`` says what it is if it is no YAML.

    Raises:
        UsageError: it is no YAML, has a value that the loader refuses, is nested too deeply, or its
            aliases contain themselves or repeat too much.
    """
    try:
        reading = loader(text)
        root = reading.get_single_node()
        if root is None:
            return Document(None, None)
        _Size(called).check(root)
        return Document(reading.construct_document(root), root)
    except RecursionError:
        raise UsageError(f"{called} is nested too deeply") from None
    except yaml.constructor.ConstructorError as error:
        raise UsageError(f"{called}{_where(error.problem_mark)}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{called} is {form}: {_complaint(error)}") from None


class _Size:
    """Measures nodes as if the nodes that aliases name were written out.

    A node that aliases name is one node at several places: it is looked at once.
    """

    def __init__(self, called: str) -> None:
        self._called = called
        self._known: dict[int, tuple[int, int]] = {}
        self._inside: set[int] = set()
        self._own = 0

    def check(self, root: yaml.Node) -> None:
        """Check the nodes of a text.

        Raises:
            UsageError: they are nested too deeply, or an alias makes them too large.
        """
        size, _ = self._look(root, 0)
        if size - self._own > _MOST_REPEATED:
            raise UsageError(
                f"{self._called}: its aliases repeat more than {_MOST_REPEATED} characters"
            )

    def _look(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        """The size of a node, and the levels in it."""
        found = self._known.get(id(node))
        if found is None:
            if depth > _DEEPEST:
                raise UsageError(f"{self._called} is nested too deeply")
            if id(node) in self._inside:
                where = _where(node.start_mark)
                raise UsageError(f"{self._called}{where}: an alias in this names this itself")
            self._inside.add(id(node))
            found = self._measured(node, depth)
            self._inside.remove(id(node))
            self._known[id(node)] = found
        if depth + found[1] > _DEEPEST:
            raise UsageError(f"{self._called} is nested too deeply")
        return found

    def _measured(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        own = _OF_EACH
        size = levels = 0
        if isinstance(node, yaml.ScalarNode):
            own += len(node.value)
        for child in _children(node):
            more, below = self._look(child, depth + 1)
            size += more
            levels = max(levels, below + 1)
        self._own += own
        return size + own, levels


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _where(mark: yaml.Mark | None) -> str:
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _complaint(error: yaml.YAMLError) -> str:
    """The parser's error message, without its excerpt of the file."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{_where(error.problem_mark).removeprefix(', ')}: {error.problem}"
    return str(error)

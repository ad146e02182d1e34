# SPDX-License-Identifier: GPL-2.0
"""Manual pages: commands and options from the command line, the rest from manual/*.roff.

The generated part cannot disagree with ``--help``, as it is the same text.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import typer.main

from ipttctl.cli import app
from ipttctl.cli.exit_codes import EXIT_CODES
from ipttctl.paths import VERSION

NAME: Final = "ipttctl"
SECTION: Final = 8
WRITTEN: Final = Path(__file__).with_name("manual")
"""Directory of handwritten parts, named after their page; they follow the generated part."""


class Command:
    """A command of the command line, as in its help."""

    def __init__(self, command: Any, name: str, parent: Command | None = None) -> None:
        """Wrap typer's object for a command, a subcommand of ``parent``."""
        self.path: tuple[str, ...] = (*(parent.path if parent else ()), name)
        self._command = command
        # the parent's settings apply to it too
        context: Any = parent._context if parent else None
        self._context: Any = command.make_context(name, [], parent=context, resilient_parsing=True)

    @property
    def text(self) -> str:
        """The command's docstring."""
        return inspect.cleandoc(self._command.help or "")

    @property
    def summary(self) -> str:
        """The first sentence of the text, without its full stop."""
        return " ".join(self.text.split("\n\n")[0].split()).split(". ")[0].rstrip(".")

    @property
    def usage(self) -> str:
        """The syntax after the command's name."""
        return " ".join(self._command.collect_usage_pieces(self._context))

    def parameters(self) -> Iterator[tuple[str, str]]:
        """(declaration, help) of the arguments, then of the options, as in the help."""
        for parameter in sorted(
            self._command.get_params(self._context), key=lambda p: p.param_type_name != "argument"
        ):
            if record := parameter.get_help_record(self._context):
                yield record

    def parameters_of(self, kind: str) -> list[Any]:
        """Typer's objects for the arguments or the options (``kind``), without hidden ones."""
        return [
            parameter
            for parameter in self._command.get_params(self._context)
            if parameter.param_type_name == kind and not parameter.hidden
        ]

    def options(self) -> set[str]:
        """All option names of the command, with their dashes."""
        return {
            name
            for parameter in self.parameters_of("option")
            for name in (*parameter.opts, *parameter.secondary_opts)
        }

    def subcommands(self) -> list[Command]:
        """The subcommands, in the order of the help."""
        inner: Mapping[str, Any] = getattr(self._command, "commands", {})
        return [
            Command(command, name, self) for name, command in inner.items() if not command.hidden
        ]

    def all(self) -> Iterator[Command]:
        """The command and all commands below it."""
        yield self
        for command in self.subcommands():
            yield from command.all()


def root() -> Command:
    """``ipttctl``."""
    return Command(typer.main.get_command(app), NAME)


def pages() -> dict[str, str]:
    """All pages, by file name."""
    top = root()
    every = {_page_name(command): command for command in (top, *top.subcommands())}
    return {
        f"{name}.{SECTION}": "\n".join(_page(name, command, every)) + "\n"
        for name, command in every.items()
    }


def _page_name(command: Command) -> str:
    return "-".join(command.path)


def _page(name: str, command: Command, every: Mapping[str, Command]) -> Iterator[str]:
    yield '.\\" SPDX-License-Identifier: GPL-2.0'
    yield f'.TH {name.upper()} {SECTION} "" "{NAME} {VERSION}" "{NAME}"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(command.summary)}"
    yield ".SH SYNOPSIS"
    for one in command.all() if len(command.path) > 1 else (command,):
        yield f".B {_text(' '.join(one.path))}"
        yield _text(one.usage)
        yield ".br"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command.text)
    yield from _options(command, ".SH")
    if len(command.path) == 1:
        yield ".SH COMMANDS"
        for one in command.subcommands():
            yield ".TP"
            yield f".BR {_text(_page_name(one))} ({SECTION})"
            yield _text(f"{one.summary}.")
    else:
        for one in command.subcommands():
            yield f".SH COMMAND {_text(one.path[-1].upper())}"
            yield from _paragraphs(one.text)
            yield from _options(one, ".SS")
    written = WRITTEN / f"{name}.roff"
    if written.exists():
        # its first line is the licence
        yield written.read_text().split("\n", 1)[1].strip()
    yield ".SH EXIT STATUS"
    for status, meaning in EXIT_CODES.items():
        yield ".TP"
        yield f".B {status}"
        yield _text(f"{meaning}.")
    yield ".SH SEE ALSO"
    others = [other for other in every if other != name]
    yield ",\n".join(f".BR {_text(other)} ({SECTION})" for other in others).replace(") ,", "),")


def _options(command: Command, heading: str) -> Iterator[str]:
    yield f"{heading} OPTIONS"
    for declaration, text in command.parameters():
        yield ".TP"
        yield f".B {_text(declaration)}"
        yield _text(text) or "\\&"


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """The text, escaped for roff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped

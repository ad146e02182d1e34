# SPDX-License-Identifier: GPL-2.0
"""The command line: ``ipttctl``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from ipttctl.cli.commands import CommandGroup
from ipttctl.cli.exit_codes import EXIT_CODES, INTERRUPTED
from ipttctl.cli.lean import without_the_rest
from ipttctl.cli.options import GroupOutputOption, group_output
from ipttctl.cli.printing import lines, note
from ipttctl.cli.standard_files import ReaderGoneError, checked, keep_numbers, take_any_encoding
from ipttctl.errors import IpttctlError, ModuleError, UsageError, os_reason
from ipttctl.paths import VERSION
from ipttctl.system.inherited import Inherited
from ipttproto import FINGERPRINT, MINOR, ProtocolError
from ipttproto import VERSION as MAJOR

_EXPECTED: Final = (IpttctlError, TyperException, ProtocolError, OSError)
_EPILOG: Final = "Exit status: " + "; ".join(f"{n} {text}" for n, text in EXIT_CODES.items()) + "."

app = typer.Typer(
    name="ipttctl",
    cls=CommandGroup,
    help="Run BPF programs inside netfilter, and see which rule decided over a packet.",
    epilog=_EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        lines([f"ipttctl {VERSION}, protocol {MAJOR}.{MINOR}, build {FINGERPRINT:08x}"])
        raise typer.Exit


@app.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    output: GroupOutputOption = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="print the versions of ipttctl and of its protocol, and end",
        ),
    ] = False,
) -> None:
    """Run BPF programs inside netfilter, and see which rule decided over a packet.

    Without a command: show the module and its links.
    """
    del version
    form = group_output(context, output)
    if context.invoked_subcommand is None:
        # commands do not need it: 30 ms
        from ipttctl.cli import module  # noqa: PLC0415  # see above

        module.overview(form)


def run(arguments: Sequence[str] | None = None, inherited: Inherited | None = None) -> int:
    """Run a command line; returns its exit status. Errors become one line on standard error.

    ``inherited`` are the descriptors that it may name, by default those that are open now.
    """
    inherited = inherited or Inherited.now()
    with checked():
        try:
            with _interruptible():
                result = app(
                    args=arguments, prog_name="ipttctl", standalone_mode=False, obj=inherited
                )
        except ReaderGoneError:
            return 0
        except (KeyboardInterrupt, typer.Abort):
            _drop_output()
            return INTERRUPTED
        except _EXPECTED as error:
            text, status = _explain(error)
            note(f"ipttctl: {' '.join(text.split())}")
            return status
        return result if isinstance(result, int) else 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, if it would end the process."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _drop_output() -> None:
    """Drop the rest of the buffer, which would wait for a reader at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the command line of this process, and end it; see ``ipttctl.__main__``."""
    inherited = Inherited.now()
    # we only resolve a family with it
    without_the_rest("pyroute2")
    keep_numbers()
    take_any_encoding()
    sys.exit(run(inherited=inherited))


def _explain(error: Exception) -> tuple[str, int]:
    """The sentence and the exit status for an error."""
    if isinstance(error, IpttctlError):
        return str(error), error.exit_code
    if isinstance(error, TyperException):
        # typer does not export the class that has it
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "ipttctl"
        return f"{error.format_message().rstrip('.')}; see `{command} --help`", UsageError.exit_code
    if isinstance(error, ProtocolError):
        return f"the module sent what the protocol does not allow: {error}", ModuleError.exit_code
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{os_reason(error)}", IpttctlError.exit_code
    return str(error), IpttctlError.exit_code

# SPDX-License-Identifier: GPL-2.0
"""The command line: ``ipttctl``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from ipttctl.cli import (
    cflags,
    declared,
    doctor,
    events,
    links,
    maps,
    module,
    run_command,
    swap,
    trace,
)
from ipttctl.cli.keep import SwapCommand
from ipttctl.cli.lean import without_the_rest
from ipttctl.cli.options import Output
from ipttctl.cli.output import lines, note
from ipttctl.cli.standard_files import ReaderGoneError, checked, keep_numbers, take_any_encoding
from ipttctl.errors import IpttctlError, LinkDetachedError, ModuleError, UsageError, os_reason
from ipttctl.paths import VERSION
from ipttctl.system.inherited import Inherited
from ipttproto import FINGERPRINT, ProtocolError

EXIT_CODES: Final = {
    0: "done",
    1: "refused by the kernel, or failed otherwise",
    2: "the command line makes no sense",
    3: "the module is missing, does not build or load, is in use, is of another build, or was "
    "unloaded meanwhile",
    4: "a program, a filter, a map or its key is missing, or does not compile or load",
    5: "not privileged",
    6: "there is no such link",
    7: "the link is not as --expect-gen or --expect-prog says, or was swapped meanwhile",
    doctor.FAILED: "doctor found that something is missing",
    declared.DIFFERS: "diff found that something is not as declared",
    LinkDetachedError.exit_code: "attach, adopt: somebody else detached the link",
    run_command.NOT_EXECUTABLE: "run: the command cannot be executed",
    run_command.NOT_FOUND: "run: there is no such command",
    130: "interrupted before there was anything to end",
}
"""Exit status of ``ipttctl`` -> its meaning."""

_EXPECTED: Final = (IpttctlError, TyperException, ProtocolError, OSError)
_EPILOG: Final = "Exit status: " + "; ".join(f"{n} {text}" for n, text in EXIT_CODES.items()) + "."

app = typer.Typer(
    name="ipttctl",
    help="Run BPF programs inside netfilter, and see which rule decided over a packet.",
    epilog=_EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(trace.trace)
app.command()(links.attach)
app.command(cls=SwapCommand)(swap.swap)
app.command()(swap.confirm)
app.command()(swap.history)
app.command()(declared.apply)
app.command()(declared.diff)
app.command()(declared.save)
app.command()(links.adopt)
app.command()(links.detach)
app.command("links")(links.links)
app.command("events")(events.events)
app.command(
    "run",
    # options after COMMAND are its own
    context_settings={"allow_interspersed_args": False},
    epilog="Exit status: COMMAND's; or that of ipttctl, see `ipttctl --help`.",
)(run_command.run)
app.command()(events.stats)
app.command("maps")(maps.maps)
app.add_typer(maps.app, name="map")
app.add_typer(module.app, name="module")
app.command()(doctor.doctor)
app.command("cflags")(cflags.cflags)


def _print_version(wanted: bool) -> None:
    if wanted:
        lines([f"ipttctl {VERSION}, protocol {FINGERPRINT:08x}"])
        raise typer.Exit


@app.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    output: Annotated[
        Output | None, typer.Option("-o", "--output", help="text for people, json for programs")
    ] = None,
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
    if context.invoked_subcommand is None:
        module.overview(output or Output.TEXT)
    elif output is not None:
        raise UsageError(
            "--output is a command's own option",
            f"write `ipttctl {context.invoked_subcommand} --output {output}`",
        )


def run(arguments: Sequence[str] | None = None, inherited: Inherited | None = None) -> int:
    """Run a command line; returns its exit status. Errors become one line on standard error.

    ``inherited`` are the descriptors that it may name, by default those that are open now.
    """
    inherited = inherited or Inherited.now()
    with checked():
        try:
            result = app(args=arguments, prog_name="ipttctl", standalone_mode=False, obj=inherited)
        except ReaderGoneError:
            return 0
        except (KeyboardInterrupt, typer.Abort):
            _drop_output()
            return 130
        except _EXPECTED as error:
            text, status = _explain(error)
            note(f"ipttctl: {' '.join(text.split())}")
            return status
        return result if isinstance(result, int) else 0


def _drop_output() -> None:
    """Drop the rest of the buffer, which would wait for a reader at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The console script."""
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
        return f"{error.format_message().rstrip('.')}; see `ipttctl --help`", UsageError.exit_code
    if isinstance(error, ProtocolError):
        return f"the module sent what the protocol does not allow: {error}", ModuleError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {os_reason(error)}", IpttctlError.exit_code
    return str(error), IpttctlError.exit_code

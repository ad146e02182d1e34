# SPDX-License-Identifier: GPL-2.0
"""Standard input, output and error, some of which may be closed or broken."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, BinaryIO, Final, TextIO

from ipttctl.errors import IpttctlError, os_reason
from ipttctl.escape import code

_STANDARD: Final = 3
#: characters of ours that an encoding may lack -> their replacements
_PLAIN: Final = {"µ": "u"}


class ReaderGoneError(Exception):
    """Nobody reads standard output any more."""


class OutputError(IpttctlError):
    """Standard output takes nothing: it is full, closed, or broken otherwise."""


def keep_numbers() -> None:
    """Keep the numbers of closed standard files from being given to other files.

    Otherwise the output of libraries would go into those files. A command that we execute still
    finds the standard files closed.
    """
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) < _STANDARD:
        pass
    os.close(fd)


def _encoded_plainly(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that the encoding of a stream lacks (a codec's error handler)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or code(c) for c in lacking), error.end


_ENCODED_PLAINLY: Final = "ipttctl"
codecs.register_error(_ENCODED_PLAINLY, _encoded_plainly)


def take_any_encoding() -> None:
    """Let no character fail to be printed, whatever the encoding of the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ENCODED_PLAINLY)


@contextmanager
def checked() -> Iterator[None]:
    """Distinguish errors of standard output from all others, and ignore those of standard error.

    Every print, typer's included, raises ReaderGoneError or OutputError if standard output cannot
    be written. If standard error cannot be written nobody can be told, and commands go on.
    """
    with redirect_stdout(_Output(sys.stdout)), redirect_stderr(_Messages(sys.stderr)):
        yield


class _Checked(io.TextIOBase):
    """A text file whose errors go to ``_failed``; None stands for a closed file.

    After the first error every write fails: libraries try files out and swallow the error.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text."""
        self._try(lambda: self._open().write(text))
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:  # type: ignore[override]  # of text only
        """Write texts one after the other."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Flush the buffer."""
        # a closed file has nothing to flush
        if self._file is not None:
            self._try(self._file.flush)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._file is not None and self._file.isatty()

    def fileno(self) -> int:
        """Its descriptor."""
        return super().fileno() if self._file is None else self._file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute of files
        """The encoding of what is written."""
        return "utf-8" if self._file is None else self._file.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # likewise
        """The error handler of the encoding."""
        return "strict" if self._file is None else self._file.errors

    @property
    def buffer(self) -> BinaryIO:
        """The binary file, which typer uses directly if the encoding is ASCII."""
        self._try(self.flush)
        return self._open().buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _open(self) -> TextIO:
        if self._file is None:
            raise OSError("it is closed")
        return self._file

    def _try(self, action: Callable[[], object]) -> None:
        if self._error is None:
            try:
                action()
            except OSError as error:
                self._error = error
                self._drop()
        if self._error is not None:
            self._failed(self._error)

    def _drop(self) -> None:
        """Discard the rest of the buffer: it must not fail again at exit."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.dup2(nowhere, self.fileno())
            finally:
                os.close(nowhere)

    def _failed(self, error: OSError) -> None:
        raise NotImplementedError


class _Output(_Checked):
    def _failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError from None
        raise OutputError(f"cannot write to standard output: {os_reason(error)}") from None


class _Messages(_Checked):
    def _failed(self, error: OSError) -> None:
        """Ignore it: nobody can be told."""

# SPDX-License-Identifier: GPL-2.0
"""libnftables: rulesets in nft's syntax, loaded without starting a program for each."""

from __future__ import annotations

import ctypes
import weakref
from typing import Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import IpttctlError, UsageError
from ipttctl.system import netns

_LIBRARY: Final = "libnftables.so.1"


class RulesetError(IpttctlError):
    """A ruleset that nft or the kernel refuses."""


class Nftables(Closing):
    """A context of libnftables for one network namespace."""

    def __init__(self, namespace: netns.Namespace) -> None:
        """Make the context; the caller keeps the namespace.

        Raises:
            UsageError: the library is not installed.
        """
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            raise UsageError(f"{_LIBRARY} is missing", "install nftables") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        for function in (
            library.nft_ctx_free,
            library.nft_ctx_buffer_error,
            library.nft_ctx_buffer_output,
            library.nft_ctx_get_error_buffer,
        ):
            function.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._namespace = namespace
        # it opens its socket here, or, in later versions, when it runs a command
        with netns.entered(namespace.fileno()):
            self._context = library.nft_ctx_new(0)
        self._close = weakref.finalize(self, library.nft_ctx_free, self._context)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def close(self) -> None:
        """Free the context. Closing more than once does no harm."""
        self._close()

    def load(self, ruleset: str) -> None:
        """Load a ruleset as one transaction.

        Raises:
            RulesetError: it is refused.
        """
        with netns.entered(self._namespace.fileno()):
            failed = self._library.nft_run_cmd_from_buffer(self._context, ruleset.encode())
        if failed:
            message = self._library.nft_ctx_get_error_buffer(self._context) or b""
            raise RulesetError(f"the ruleset is refused: {message.decode(errors='replace')}")

    def takes(self, ruleset: str) -> bool:
        """Whether a ruleset is taken; nothing of the namespace's rulesets is left afterwards."""
        try:
            self.load(ruleset)
        except RulesetError:
            return False
        self.load("flush ruleset")
        return True

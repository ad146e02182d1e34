# SPDX-License-Identifier: GPL-2.0
"""Commands to an agent, read strictly: what is not described here is refused.

There is no place in them for a path, a source or a PID.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from ipttctl.errors import UsageError
from ipttctl.fleet.config import LinkMode
from ipttctl.fleet.filter_words import LONGEST as LONGEST_FILTER
from ipttctl.fleet.filter_words import check_filter
from ipttctl.fleet.grants import Grant
from ipttctl.fleet.spellings import DIGEST, FUNCTION, HOOK, NAMESPACE
from ipttctl.hooks.nf import HOOK_SYNTAX, NfHook
from ipttctl.link.condition import Condition

LONGEST: Final = 128 * 1024
"""Most bytes of a request."""

Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,30}\Z")]
_Number: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
_Filter: TypeAlias = Annotated[str, Meta(max_length=LONGEST_FILTER)]
_Hook: TypeAlias = Annotated[str, Meta(pattern=HOOK)]
_Slot: TypeAlias = Literal["entry", "rule", "exit", "packet", "function", "step"]
_Text: TypeAlias = Annotated[str, Meta(max_length=127)]
_Seconds: TypeAlias = Annotated[float, Meta(ge=1, le=86_400)]
_Key: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
_Trace: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
_Rollout: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
_Guards: TypeAlias = Annotated[list[Annotated[str, Meta(max_length=127)]], Meta(max_length=4)]
_Grants: TypeAlias = Annotated[list[Grant], Meta(max_length=64)]
_Namespace: TypeAlias = Annotated[str, Meta(pattern=NAMESPACE)]


class Object(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A program: a function in a compiled object, which is named by its digest."""

    digest: Annotated[str, Meta(pattern=DIGEST)]
    function: Annotated[str, Meta(pattern=FUNCTION)]


class Declared(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A link: where it is, and its programs.

    In mode ``filter`` they drop packets. Defaults are not written, so that hosts that do not know
    modes yet take links that observe.
    """

    hook: _Hook
    mode: LinkMode = "observe"
    programs: Annotated[dict[_Slot, Object], Meta(min_length=1)]
    netns: _Namespace | None = None
    filter: _Filter = ""
    label: Annotated[dict[_Text, _Text], Meta(max_length=16)] = {}

    def entry(self) -> dict[str, Any]:
        """The link as the file of ``apply`` has it; objects lie in the file's directory."""
        found: dict[str, Any] = {
            "hook": self.hook,
            "object": {
                slot: f"{file_name(one.digest)}:{one.function}"
                for slot, one in self.programs.items()
            },
        }
        optional = {
            "mode": self.mode if self.mode != "observe" else None,
            "netns": self.netns,
            "filter": self.filter,
            "label": dict(self.label),
        }
        return found | {name: value for name, value in optional.items() if value}


Links: TypeAlias = Annotated[dict[Name, Declared], Meta(max_length=256)]


def _verb(name: str) -> str:
    return name.removesuffix("Request").lower()


class _Request(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="verb", tag=_verb
):
    """A command; the verb says which."""


class LinksRequest(_Request, frozen=True):
    """List all links."""


class TraceRequest(_Request, frozen=True, kw_only=True):
    """Begin a trace, which ends when the lease is over unless it is renewed."""

    filter: _Filter = ""
    lease: _Seconds
    both_ways: bool = False
    drops: bool = False
    join: _Key | None = None
    """The key of the hash of payloads: stories tell what joins them with those of other hosts."""
    await_drops: bool = False
    """Stories without a drop are told once their packets have ended, or the trace has."""


class RenewRequest(_Request, frozen=True, kw_only=True):
    """Let a trace go on for another lease."""

    trace: _Trace
    lease: _Seconds


class EndRequest(_Request, frozen=True, kw_only=True):
    """End a trace."""

    trace: _Trace


class DetachRequest(_Request, frozen=True, kw_only=True):
    """Detach a link."""

    link: _Number | Name


class AttachRequest(_Request, frozen=True, kw_only=True):
    """Attach a persistent link with a name."""

    name: Name
    link: Declared
    grants: _Grants = []


class SwapRequest(_Request, frozen=True, kw_only=True):
    """Swap the programs of a link with a name, at the hook where it is."""

    name: Name
    link: Declared
    rollback_after: _Seconds | None = None
    grants: _Grants = []


class ApplyRequest(_Request, frozen=True, kw_only=True):
    """Make these the links that the fleet declares, as a part of a roll-out if it names one."""

    links: Links
    rollout: _Rollout | None = None
    rollback_after: _Seconds | None = None
    guards: _Guards = []
    """Conditions as for ``apply --guard``."""
    grants: _Grants = []


class DiffRequest(_Request, frozen=True, kw_only=True):
    """List the steps that ``apply`` would take."""

    links: Links
    grants: _Grants = []


class ConfirmRequest(_Request, frozen=True, kw_only=True):
    """Keep what a roll-out applied here, or the swap of a link that waits."""

    rollout: _Rollout | None = None
    name: Name | None = None


class RollbackRequest(_Request, frozen=True, kw_only=True):
    """Undo what a roll-out applied here, kept or not, or the swap of a link that waits."""

    rollout: _Rollout | None = None
    name: Name | None = None


class StatusRequest(_Request, frozen=True):
    """Tell what became of the last roll-out here, and the counters of its links."""


Request: TypeAlias = (
    LinksRequest
    | TraceRequest
    | RenewRequest
    | EndRequest
    | DetachRequest
    | AttachRequest
    | SwapRequest
    | ApplyRequest
    | DiffRequest
    | ConfirmRequest
    | RollbackRequest
    | StatusRequest
)
_DECODER: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)


def parse(data: bytes) -> Request:
    """Read a request.

    Raises:
        UsageError: it is too long, or not one.
    """
    if len(data) > LONGEST:
        raise UsageError(f"the request has {len(data)} bytes, {LONGEST} at most")
    try:
        request = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        text = str(error)
        raise UsageError(f"the request cannot be read: {text[:1].lower()}{text[1:]}") from None
    if isinstance(request, TraceRequest):
        check_filter(request.filter)
    for name, link in declared(request):
        check_filter(link.filter)
        if link.mode != "observe":
            check_mode(name, link.hook)
    if isinstance(request, ApplyRequest):
        guards_of(request)
    if isinstance(request, ConfirmRequest | RollbackRequest):
        _check_one(request)
    return request


def guards_of(request: ApplyRequest) -> list[Condition]:
    """The guards of a request.

    Raises:
        UsageError: one is not spelled as a condition.
    """
    return [Condition.parse(text, "guards") for text in request.guards]


def _check_one(request: ConfirmRequest | RollbackRequest) -> None:
    if (request.rollout is None) == (request.name is None):
        raise UsageError("the request cannot be read: one of rollout and name has to be there")


def declared(request: Request) -> Iterator[tuple[str, Declared]]:
    """The links of a request that brings programs, each with its name."""
    match request:
        case AttachRequest() | SwapRequest():
            yield request.name, request.link
        case ApplyRequest() | DiffRequest():
            yield from request.links.items()


def verb_of(request: Request) -> str:
    """The verb that ``allow`` must have for a request."""
    match request:
        case RenewRequest() | EndRequest():
            return "trace"
    return _verb(type(request).__name__)


def check_mode(name: str, hook: str) -> None:
    """Check that a link may have a mode, for which its hook has to be one of netfilter.

    Raises:
        UsageError: it is of another kind.
    """
    if not NfHook.means(hook):
        raise UsageError(
            f"link {name}: links at {hook} have no mode, and drop nothing",
            f"leave mode out, or declare a hook as {HOOK_SYNTAX}",
        )


def file_name(digest: str) -> str:
    """The name of the file of an object."""
    return f"{digest.removeprefix('sha256:')}.o"

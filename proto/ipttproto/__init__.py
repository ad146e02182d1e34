# SPDX-License-Identifier: GPL-2.0
"""ipttproto: the wire protocol of the generic-netlink family ``ipttrace``, defined once."""

from typing import TYPE_CHECKING, Any

from ipttproto.batches import EventBatch, event_dtype, parse_batch
from ipttproto.enumerations import (
    JOURNEY_SLOTS,
    SPINE_SLOTS,
    TABLE_SLOTS,
    Action,
    Comparison,
    Conntrack,
    Counter,
    DetachReason,
    Emit,
    EventFlag,
    Feature,
    Gone,
    Hook,
    Kind,
    Layout,
    LinkFlag,
    Loss,
    NfMode,
    Select,
    Slot,
    SwapAck,
    SwapOutcome,
    Walk,
)
from ipttproto.errors import ProtocolError
from ipttproto.family import FAMILY, MINOR, VERSION
from ipttproto.fingerprint import FINGERPRINT
from ipttproto.joined import JoinedBatches
from ipttproto.messages import (
    Acknowledgement,
    Done,
    Flag,
    Message,
    build_request,
    first_type,
    parse_datagram,
)
from ipttproto.netfilter import (
    ArpHook,
    ArpOperation,
    HookNumber,
    InetHook,
    NetdevHook,
    NfFamily,
    TcpFlag,
    Verdict,
)
from ipttproto.operations import Command, Group, features_needed

if TYPE_CHECKING:
    from ipttproto.arrays import np

    EVENT_DTYPE: np.dtype[np.void]

__all__ = [
    "EVENT_DTYPE",
    "FAMILY",
    "FINGERPRINT",
    "JOURNEY_SLOTS",
    "MINOR",
    "SPINE_SLOTS",
    "TABLE_SLOTS",
    "VERSION",
    "Acknowledgement",
    "Action",
    "ArpHook",
    "ArpOperation",
    "Command",
    "Comparison",
    "Conntrack",
    "Counter",
    "DetachReason",
    "Done",
    "Emit",
    "EventBatch",
    "EventFlag",
    "Feature",
    "Flag",
    "Gone",
    "Group",
    "Hook",
    "HookNumber",
    "InetHook",
    "JoinedBatches",
    "Kind",
    "Layout",
    "LinkFlag",
    "Loss",
    "Message",
    "NetdevHook",
    "NfFamily",
    "NfMode",
    "ProtocolError",
    "Select",
    "Slot",
    "SwapAck",
    "SwapOutcome",
    "TcpFlag",
    "Verdict",
    "Walk",
    "build_request",
    "features_needed",
    "first_type",
    "parse_batch",
    "parse_datagram",
]


def __getattr__(name: str) -> Any:
    """Make the structured type of events when it is first used: numpy is slow to import."""
    if name == "EVENT_DTYPE":
        return event_dtype()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

# SPDX-License-Identifier: GPL-2.0
"""The messages of the family: its commands, with the attributes that each takes and answers."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ipttproto.enumerations import Documented, Feature
from ipttproto.family import Top


class Group(enum.StrEnum):
    """Multicast groups."""

    EVENTS = "events"
    LINKS = "links"
    NAMESPACES = "namespaces"


class Command(Documented):
    """Messages of the family, requests and notifications."""

    ATTACH = 1, "make a link: put a program set to a hook"
    SWAP = 2, "replace a link's program set in one step; its generation grows by one"
    DETACH = 3, "remove a link"
    GET = 4, "one link, or all of them"
    STATS = 5, "the module: versions, features, event stream of each CPU"
    LINK_ATTACHED = 6, "notification: a link was made"
    LINK_SWAPPED = 7, "notification: a link has a new program set"
    LINK_DETACHED = 8, "notification: a link went"
    LINK_CHANGED = (
        9,
        "notification: armed, gone, owner, name, rollback-in, outcome or shadow changed",
    )
    EVENTS = 10, "a batch of events of one CPU"
    TRANSACT = 11, "swap several links in one step, all or none; a reply for each change, in order"
    CONFIRM = (
        12,
        "keep a swap that waits, for all its links: the roll-back is off",
    )
    HISTORY = 13, "how the last generations of a link came about"
    ADOPT = 14, "own a persistent link from now on: it goes with the sender's socket"
    NAMESPACE_GONE = 15, "a network namespace is going: nothing of it comes any more"
    VERIFY = (
        16,
        (
            "chain and spine links: take them for a namespace of the sender, who verifies the "
            "walks, until its socket is closed (netns-fd); or end the verification (walk, "
            "spine-walk)"
        ),
    )
    RULESET = 17, "the generation of the rules of a legacy table in a network namespace"
    RENAME = 18, "give a link another name, or its first one; its generation stays"
    RELEASE = 19, "make a link persistent, which then belongs to nobody, and is not exclusive"
    ROLLBACK = (
        20,
        "undo a swap that waits, at once, for all its links; a reply for each of them",
    )
    SHADOW = (
        21,
        (
            "give a link a shadow: a program set that meets the same packets, and whose verdicts "
            "are compared with the link's, and not used"
        ),
    )
    PROMOTE = 22, "swap a link's shadow in, for a generation of its own"
    DROP_SHADOW = 23, "take a link's shadow away"
    PARK = (
        24,
        (
            "take all links from their hooks, in one step, to restore them later, here or in the "
            "next module: from now on links are being restored. A dump has their last counters"
        ),
    )
    RESTORED = 25, "the links are restored: from now on others may be made"
    LINK_ENDED = 26, "notification: no packet is handled by a replaced program set any more"


@dataclass(frozen=True)
class Operation:
    """The attributes of a command's request and reply; with ``group``, those of a notification.

    With ``dump`` it also answers dumps, which take no attributes: its start function refuses those
    that a request may hold. ``since`` is the feature that it needs.
    """

    command: Command
    request: tuple[str, ...] = ()
    reply: tuple[str, ...] = ()
    dump: bool = False
    group: Group | None = None
    notify: Command | None = None
    since: Feature | None = None


_LINK: Final = (
    "link",
    "hook",
    "family",
    "flags",
    "programs",
    "generation",
    "owner-portid",
    "owner-pid",
    "owner-comm",
    "armed",
    "stats",
    "hooknum",
    "priority",
    "netns",
    "netns-cookie",
    "ifindex",
    "ifname",
    "mode",
    "gone",
    "rollback-in",
    "table",
    "chain",
    "links-sequence",
    "name",
    "labels",
    "reason-text",
    "transaction",
    "guard",
    "outcome",
    "violation",
    "shadow",
    "ended",
    "journey",
    "journey-followed",
    "journey-unfollowed",
    "journey-lost",
    "journey-ways",
    "journey-displaced",
)

#: what is known of the walk
_WALK: Final = ("walk", "walk-compared", "walk-layout", "walk-refusal", "spine-walk")

OPERATIONS: Final = (
    Operation(
        Command.ATTACH,
        (
            "hook",
            "family",
            "flags",
            "programs",
            "hooknum",
            "priority",
            "netns-fd",
            "ifindex",
            "mode",
            "table",
            "chain",
            "name",
            "labels",
            "reason-text",
            "restore",
            "journey",
            "journey-ways",
        ),
        _LINK,
    ),
    Operation(
        Command.SWAP,
        (
            "link",
            "programs",
            "expect-generation",
            "expect-program",
            "rollback-after",
            "name",
            "labels",
            "reason-text",
            "force",
            "guard",
            "swap-ack",
        ),
        _LINK,
    ),
    Operation(
        Command.DETACH,
        ("link", "expect-generation", "expect-program", "name", "reason-text", "force"),
        _LINK,
    ),
    Operation(
        Command.GET,
        ("link", "name"),
        (*_LINK, "reason", "forced-pid", "forced-comm", "requester-pid", "requester-comm"),
        dump=True,
    ),
    Operation(
        Command.STATS,
        (),
        (
            "fingerprint",
            "module-version",
            *_WALK,
            "links-sequence",
            "cpu",
            "restoring",
            "last-link",
            "protocol-major",
            "protocol-minor",
            "features",
        ),
    ),
    Operation(
        Command.TRANSACT,
        ("change", "rollback-after", "reason-text", "force", "guard", "swap-ack"),
        _LINK,
    ),
    Operation(Command.CONFIRM, ("link", "expect-generation", "name", "transaction"), _LINK),
    Operation(Command.HISTORY, ("link", "name"), ("link", "generation", "history")),
    Operation(Command.ADOPT, ("link", "flags", "name", "force"), _LINK),
    Operation(Command.VERIFY, ("netns-fd", "walk", "walk-compared", "spine-walk"), _WALK),
    Operation(Command.RULESET, ("netns-fd", "family", "table"), ("ruleset", "replacing")),
    Operation(Command.RENAME, ("link", "name", "new-name"), _LINK, since=Feature.LINK_NAMES),
    Operation(Command.RELEASE, ("link", "name", "force"), _LINK, since=Feature.LINK_NAMES),
    Operation(
        Command.ROLLBACK,
        ("link", "expect-generation", "name", "transaction", "reason-text", "force"),
        _LINK,
        since=Feature.GUARDS,
    ),
    Operation(
        Command.SHADOW,
        (
            "link",
            "programs",
            "expect-generation",
            "expect-program",
            "name",
            "labels",
            "force",
            "promote-if",
        ),
        _LINK,
        since=Feature.SHADOWS,
    ),
    Operation(
        Command.PROMOTE,
        (
            "link",
            "expect-generation",
            "rollback-after",
            "name",
            "reason-text",
            "force",
            "guard",
            "expect-shadow",
        ),
        _LINK,
        since=Feature.SHADOWS,
    ),
    Operation(
        Command.DROP_SHADOW,
        ("link", "expect-generation", "name", "force", "expect-shadow"),
        _LINK,
        since=Feature.SHADOWS,
    ),
    Operation(
        Command.PARK,
        ("links-sequence", "reason-text", "force"),
        ("link", "generation", "stats"),
        dump=True,
        since=Feature.UPGRADES,
    ),
    Operation(Command.RESTORED, since=Feature.UPGRADES),
    Operation(Command.LINK_ATTACHED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.LINK_SWAPPED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.LINK_DETACHED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.LINK_CHANGED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.LINK_ENDED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.EVENTS, reply=("batch", "event", "payload"), group=Group.EVENTS),
    Operation(Command.NAMESPACE_GONE, reply=("netns", "netns-cookie"), group=Group.NAMESPACES),
)

_SINCE: Final = {operation.command: operation.since for operation in OPERATIONS}


def features_needed(command: Command, attributes: Mapping[str, Any]) -> Feature:
    """The features that a module has to have for a request, by its command and attributes."""
    return Top.features(attributes) | (_SINCE[command] or Feature(0))

# SPDX-License-Identifier: GPL-2.0
"""Queries that are ready: questions that many people ask of recordings."""

from __future__ import annotations

from typing import Final, NamedTuple


class Ready(NamedTuple):
    """A query; ``{since}`` stands for the condition on the column ``time``."""

    option: str
    help: str
    sql: str


READY: Final = (
    Ready(
        "--drops-by-rule",
        "drops by the rule, function or part of the kernel that dropped, most first",
        """
        SELECT count(*) AS drops, cause, "table", chain, rulenum, any_value(rule) AS rule,
            any_value(owner) AS owner, function, drop_reason, max(time) AS last
        FROM drops WHERE {since}
        GROUP BY cause, backend, table_family, "table", chain, rulenum, rule_handle, function,
            drop_reason
        ORDER BY drops DESC, last DESC, cause, backend, table_family, "table", chain, rulenum,
            rule_handle, function, drop_reason
        LIMIT 50
        """,
    ),
    Ready(
        "--drops-by-flow",
        "drops by addresses and destination port, most first",
        """
        SELECT count(*) AS drops, protocol, source, destination, destination_port,
            any_value(text) AS text, max(time) AS last
        FROM drops WHERE {since}
        GROUP BY protocol, source, destination, destination_port
        ORDER BY drops DESC, last DESC, protocol, source, destination, destination_port LIMIT 50
        """,
    ),
    Ready(
        "--top-talkers",
        "packets and bytes by addresses, most bytes first",
        """
        SELECT count(*) AS packets, sum(length)::BIGINT AS bytes,
            count(*) FILTER (WHERE dropped) AS dropped, source, destination,
            any_value(comm) AS comm, any_value(container) AS container
        FROM stories WHERE {since} AND branch_of IS NULL
        GROUP BY source, destination
        ORDER BY bytes DESC, packets DESC, source, destination LIMIT 50
        """,
    ),
    Ready(
        "--ends",
        "what became of packets: delivered, left by which device, dropped...",
        """
        SELECT count(*) AS packets, "end", netns_name, in_device, out_device,
            (median(duration_ns) / 1000)::BIGINT AS median_us
        FROM stories WHERE {since} AND branch_of IS NULL
        GROUP BY "end", netns_name, in_device, out_device
        ORDER BY packets DESC, "end", netns_name, in_device, out_device LIMIT 50
        """,
    ),
    Ready(
        "--rules-by-matches",
        "rules by the number of packets that matched, most first",
        """
        SELECT count(*) AS matches, backend, table_family, "table", chain, rulenum,
            any_value(rule) AS rule, any_value(owner) AS owner
        FROM steps JOIN stories USING (host, run, story)
        WHERE kind = 'rule' AND {since}
        GROUP BY backend, table_family, "table", chain, rulenum, rule_handle
        ORDER BY matches DESC, backend, table_family, "table", chain, rulenum, rule_handle LIMIT 50
        """,
    ),
)

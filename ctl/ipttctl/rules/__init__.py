# SPDX-License-Identifier: GPL-2.0
"""Rulesets, their generations, and the text of each rule at the moment a packet passed.

``rulesets.Rulesets`` answers, ``backends.backends`` says which back ends hold rules at all. Below
them, ``namespace`` decides what is done when; ``follower`` follows one ruleset over ``netlink``
(``messages``) and keeps its ``history``; ``texts`` has programs list its rules (``listing``), in
confinement (``confine``), and chooses the syntax (``origin``). ``legacy`` keeps the rules of legacy
tables by generation.
"""

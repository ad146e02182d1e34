# SPDX-License-Identifier: GPL-2.0
"""Everything at once: every use of the module, by many processes, under traffic.

``python -m tests.storm`` is the command line, for a guest; docs/testing.md says what it proves.

    storm.py            runs the storm twice, the first time to warm up, and checks the leftovers
    stage.py            the networks and the cast; supervises it
    actor.py            the common part of all actors; their processes
    shared.py           words of memory that the processes share
    journal.py          the record of all actions
    accounting.py       leads the rounds, and compares events with a rule's own counter
    controllers.py      attach, swap, detach; and are killed
    journeys.py         follows packets, and checks what is told of each
    observers.py        come, stall, overrun, vanish
    rules.py            replaces rulesets
    namespaces.py       makes namespaces and destroys them
    table_modules.py    unloads the table code and loads it
    processors.py       takes CPUs offline and online
    upgrades.py         links that outlive the module
    unloader.py         tries to unload the module
    traffic.py          packets in every namespace
    memory.py           memory that the kernel holds
"""

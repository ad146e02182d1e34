# SPDX-License-Identifier: GPL-2.0
"""Everything at once: what can be done to the module, by many processes, under traffic.

``python -m tests.storm`` is the command line, for a guest; docs/testing.md tells what it proves.

    storm.py            raises the storm twice, a short one to warm up, and looks at what is left
    stage.py            the networks and the cast; supervises it
    actor.py            the common part of all actors; their processes
    shared.py           words of memory that the processes share
    journal.py          who did what when
    accounting.py       leads the rounds, and holds events against a rule's own counter
    controllers.py      attach, swap, detach; and are killed
    observers.py        come, stall, overrun, vanish
    rules.py            replaces rulesets
    namespaces.py       makes namespaces and destroys them
    table_modules.py    unloads the table code and loads it
    processors.py       takes CPUs off line and on line
    unloader.py         tries to unload the module
    traffic.py          packets in every namespace
    memory.py           memory that the kernel holds
"""

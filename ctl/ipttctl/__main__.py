# SPDX-License-Identifier: GPL-2.0
"""The command ``ipttctl``, also as ``python -m ipttctl``.

Until its command line runs, Ctrl-C just ends the process: what is imported until then takes a third
of a second, and Python would tell where in it that was.
"""

from signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal


def main() -> None:
    """The console script."""
    # where it is ignored it stays so
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)
    from ipttctl import cli  # noqa: PLC0415  # see above

    cli.main()


if __name__ == "__main__":
    main()

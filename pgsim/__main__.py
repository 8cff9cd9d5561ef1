"""`python -m pgsim` is `pgsim`: both call `main` here, in which a Ctrl-C while the imports run is one line, too.

Nothing but sys is imported before; a Ctrl-C while Python itself starts is Python's own to report.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command of the process's own arguments; return the exit code."""
    try:
        from pgsim.cli import interrupt

        with interrupt.remembered():
            from pgsim.cli.main import main as command

            return command()
    except KeyboardInterrupt:  # in an import: a command that runs answers its own
        if sys.stderr is not None:
            print("pgsim: interrupted", file=sys.stderr)
        return 130  # pgsim.cli.main.INTERRUPTED, which may be what was being imported


if __name__ == "__main__":
    sys.exit(main())

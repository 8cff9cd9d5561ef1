"""The `pgsim` command: one table of commands, and one place where errors become lines and exit codes.

Exit codes: 0 done; 1 integers that differ or a check that fails; 2 an input, option or output that is refused;
70 a bug of pgsim (with its traceback); 130 interrupted; 141 the reader of stdout went away.

Nothing heavy is imported here: a command is imported when it is chosen, and imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from pgsim import __version__
from pgsim.cli import interrupt
from pgsim.errors import PgsimError

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("pgsim.cli.run", "simulate a trace on one or more accelerators and print cycles, energy and traffic"),
    "info": ("pgsim.cli.info", "show what a trace or a hardware file holds"),
    "validate": ("pgsim.cli.validate", "check a trace's container, metadata and digests, or a hardware file"),
    "verify": ("pgsim.cli.verify", "recompute a trace and compare every integer"),
    "hw": ("pgsim.cli.hw", "list, show and check hardware files and energy tables"),
    "train": ("pgsim.cli.train", "fine-tune a precision-gated network after a recipe (needs torch)"),
    "trace": ("pgsim.cli.trace", "turn a trained network into a trace (needs torch)"),
    "options": (
        "pgsim.cli.options",
        "measure what other hardware arithmetic does to a network's accuracy (needs torch)",
    ),
    "paper": ("pgsim.cli.paper", "print the paper's tables beside our own trained networks, and draw its figures"),
    "rtl": ("pgsim.cli.rtl", "write an accelerator's SystemVerilog: modules, parameters, wrapper, test bench"),
    "cosim": ("pgsim.cli.cosim", "run a trace through the compiled RTL and compare every bit and cycle (needs g++)"),
}
"""Command -> (module, help in one line). A module has configure(parser) and run(args) -> exit code."""

BUG, INTERRUPTED, NO_READER = 70, 130, 141


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors take one line and whose options are never guessed from their first letters."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{"allow_abbrev": False, **options})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and exit with 2."""
        self.exit(2, f"pgsim: error: {_one_line(message)} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. `argv` lacks the program's name; None takes the process's own."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy loads: for blocks this small, threads only wait
    _open_streams()
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character gets its escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            with interrupt.remembered():
                interrupt.check()  # the imports before may have swallowed one
                code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        except SystemExit as end:  # argparse: --help, --version, a usage error
            code = end.code if isinstance(end.code, int) else 0
        sys.stdout.flush()
        return code
    except PgsimError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return NO_READER
    except OSError as error:
        _drop_stdout()
        where = f"{error.filename}: " if error.filename is not None else ""
        _say(f"error: {where}{error.strerror or error}")
        return PgsimError.exit_code
    except MemoryError:
        return _without_memory()
    except Exception as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's own
            return _without_memory()
        if interrupt.pressed():  # in compiled code, which made another exception of it
            _say("interrupted")
            return INTERRUPTED
        traceback.print_exc()
        _say("this is a bug of pgsim; please report it with the lines above")
        return BUG


def _without_memory() -> int:
    _say("error: not enough memory; fewer images a trace, or a smaller batch, take less")
    return PgsimError.exit_code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] not in COMMANDS:
        return _without_command(argv)
    name, *rest = argv
    module_name, summary = COMMANDS[name]
    module = importlib.import_module(module_name)
    text = summary[0].upper() + summary[1:] + "."
    parser = Parser(prog=f"pgsim {name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.configure(parser)
    code: int = module.run(parser.parse_args(rest))
    return code


def _without_command(argv: list[str]) -> int:
    """Handle --help, --version, no command, and one that does not exist."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    parser = Parser(
        prog="pgsim",
        usage="pgsim [--version] [--help] COMMAND ...",
        description="Bit-accurate, cycle-level simulation of accelerators that run Precision Gating networks.",
        epilog="\n".join(["commands:", *lines, "", "pgsim COMMAND --help tells more about each."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pgsim {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    args, _ = parser.parse_known_args(argv)
    if args.command is None:
        parser.error("a command must be given: " + ", ".join(COMMANDS) if not argv else f"unknown option {argv[0]}")
    if args.command in COMMANDS:
        parser.error(f"the command must come first, before {argv[0]}")
    close = difflib.get_close_matches(args.command, COMMANDS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    parser.error(f"the command must be one of {', '.join(COMMANDS)}, not {args.command!r}{hint}")


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() or c.isspace() else ascii(c)[1:-1] for c in text).split())


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr may be closed, too
        print(f"pgsim: {_one_line(text)}", file=sys.stderr, flush=True)


def _open_streams() -> None:
    """Give a standard stream that was closed before the start (`>&-`) the null device to write to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the process's life


def _drop_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)

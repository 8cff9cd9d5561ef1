"""The errors that pgsim raises for its user's input. Imports nothing of the project.

A wrong call (a programmer's mistake) raises ValueError or TypeError; a broken invariant of pgsim itself is
an assertion. Everything here is somebody's input, prints as one line, and names where it was, what it must
be and what it was.
"""


class PgsimError(Exception):
    """An input that pgsim refuses. `exit_code` is what the command line exits with."""

    exit_code = 2


class InputError(PgsimError):
    """A file, an option or a value that is not what it must be."""


class OverflowDetected(PgsimError):
    """An accumulator that leaves its psum_bits; the message names layer, channel, value and width needed."""


class MismatchError(PgsimError):
    """Recorded and recomputed integers that differ (exit code 1)."""

    exit_code = 1

"""The parts of an arithmetic's name and the names that are usual, as plain text: `--help` imports nothing heavy."""

from __future__ import annotations

USUAL = (
    "multiply-24", "multiply-16", "multiply-12", "multiply-8", "multiply-8-blocks", "multiply-8-stream",
    "truncate-24", "truncate-16", "truncate-12", "truncate-8",
    "shortcut-12", "shortcut-8", "shortcut-codes",
    "saturate-20", "saturate-18", "saturate-16", "wrap-20", "wrap-18", "wrap-16",
    "thresholds-12", "thresholds-8", "zero",
    "multiply-16+shortcut-12+saturate-18", "multiply-8+shortcut-8+saturate-18",
)  # fmt: skip
"""What `pgsim options` measures unless told otherwise."""

FORMS = {
    "multiply-M": "requantise by multipliers of M signed bits and a shift, rounding half up",
    "truncate-M": "the same, but the shift drops its bits",
    "multiply-M-blocks, truncate-M-blocks": "only where codes come from an accumulator",
    "multiply-M-stream, truncate-M-stream": "only onto the residual stream and from it",
    "shortcut-B": "the residual stream in B bits",
    "shortcut-codes": "the shortcut as the next layer's codes",
    "thresholds-B": "thresholds of B signed bits",
    "saturate-B, wrap-B": "accumulators of B bits that saturate or wrap after each step",
    "zero": "an output that is not updated becomes 0",
}
"""The parts that a name may have, joined by +."""

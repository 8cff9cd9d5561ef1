"""An entry of the update queue: {A_h, pixel, segment} (timing contract, section 4)."""

from __future__ import annotations

POSITION_BITS = 16  # of the pixel, as it is built: enough for any feature map of 65536 pixels
SEGMENT_BITS = 1  # no more than two segments have entries at a time


def entry_bits(psum_bits: int, out_pixels: int = 1 << POSITION_BITS) -> int:
    """Return the bits of an entry whose pixel is one of `out_pixels`; without them what the queue is built for."""
    return psum_bits + max(1, (out_pixels - 1).bit_length()) + SEGMENT_BITS

"""Split an activation code into the plane that predicts and the plane that updates, and join them again.

    code q, B bits --split--> q_h, h = pred_bits (most significant)   q = q_h * 2^l + q_l
                        `---> q_l, l = update_bits = B - h            exactly, in every encoding

Source: Precision Gating (ICLR 2020), equation 1, written there for unsigned codes. The three encodings are three
different functions: sign_magnitude, the authors' code for signed data, truncates toward zero and gives both planes
the sign; twos_complement truncates toward -inf and its q_l is unsigned.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, NumberFormat


def split_code(code: int, encoding: Encoding, bits: int, pred_bits: int) -> tuple[int, int]:
    """Split one code into (q_h, q_l): the obvious reference of `split`.

    `code` is any code of the format (encoding, bits), 0 < pred_bits < bits. Raises ValueError otherwise.
    """
    low = _update_bits(bits, pred_bits)
    _check_range(code, code, NumberFormat(encoding, bits))
    if encoding is Encoding.SIGN_MAGNITUDE:
        sign = -1 if code < 0 else 1
        return sign * (abs(code) >> low), sign * (abs(code) % 2**low)
    return code >> low, code % 2**low  # >> floors and % is never negative: toward -inf, q_l unsigned


@overload
def split(codes: int, encoding: Encoding, bits: int, pred_bits: int) -> tuple[int, int]: ...


@overload
def split(codes: NDArray[Any], encoding: Encoding, bits: int, pred_bits: int) -> tuple[NDArray[Any], NDArray[Any]]: ...


def split(codes: Any, encoding: Encoding, bits: int, pred_bits: int) -> Any:
    """Split codes into (q_h, q_l), each of the shape and dtype of `codes`; a python int gives two ints.

    An empty array gives empty planes. `codes` holds codes of the format (encoding, bits), 0 < pred_bits < bits.
    Ranges of q_h and q_l: unsigned 0 .. 2^h - 1 and 0 .. 2^l - 1; sign_magnitude the same with either sign, the
    sign of the code; twos_complement -2^(h-1) .. 2^(h-1) - 1 and 0 .. 2^l - 1. Raises ValueError where bits or
    codes are outside these ranges, TypeError for an array that is not of integers. Source: equation 1.
    """
    if isinstance(codes, int):
        return split_code(codes, encoding, bits, pred_bits)
    low = _update_bits(bits, pred_bits)
    if codes.dtype.kind not in "iu":
        raise TypeError(f"codes must be an integer array, not {codes.dtype}")
    if codes.size:
        _check_range(int(codes.min()), int(codes.max()), NumberFormat(encoding, bits))
    if encoding is Encoding.SIGN_MAGNITUDE and codes.dtype.kind == "i":
        magnitude = np.abs(codes)
        sign = np.sign(codes)
        return sign * (magnitude >> low), sign * (magnitude & (2**low - 1))
    return codes >> low, codes & (2**low - 1)


@overload
def join(q_h: int, q_l: int, update_bits: int) -> int: ...


@overload
def join(q_h: NDArray[Any], q_l: NDArray[Any], update_bits: int) -> NDArray[Any]: ...


def join(q_h: Any, q_l: Any, update_bits: int) -> Any:
    """Return q_h * 2^update_bits + q_l: the code, in any encoding. Planes are ints or integer arrays of one dtype."""
    return q_h * 2**update_bits + q_l


def plane_formats(encoding: Encoding, bits: int, pred_bits: int) -> tuple[NumberFormat, NumberFormat]:
    """Return the formats of q_h and of q_l. The low plane of twos_complement is unsigned. Raises ValueError."""
    low = _update_bits(bits, pred_bits)
    low_encoding = Encoding.UNSIGNED if encoding is Encoding.TWOS_COMPLEMENT else encoding
    return NumberFormat(encoding, pred_bits), NumberFormat(low_encoding, low)


def _update_bits(bits: int, pred_bits: int) -> int:
    if not 0 < pred_bits < bits:
        raise ValueError(f"pred_bits must be between 0 and bits = {bits}, exclusive, not {pred_bits}")
    return bits - pred_bits


def _check_range(low: int, high: int, number_format: NumberFormat) -> None:
    for code in (low, high):
        if not number_format.min_code <= code <= number_format.max_code:
            raise ValueError(
                f"{number_format.bits}-bit {number_format.encoding.value} codes must be "
                f"{number_format.min_code} .. {number_format.max_code}, not {code}"
            )

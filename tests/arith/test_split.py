"""The bit split, over every code of every format up to 8 bits and every split of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.arith.split import join, plane_formats, split, split_code

from .drawn import SPLITS


def scalar_split(
    codes: NDArray[Any], encoding: Encoding, bits: int, pred_bits: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """`split_code` one element at a time."""
    planes = np.array([split_code(int(code), encoding, bits, pred_bits) for code in codes.flat], codes.dtype)
    return planes[:, 0].reshape(codes.shape), planes[:, 1].reshape(codes.shape)


def int_split(codes: NDArray[Any], encoding: Encoding, bits: int, pred_bits: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """`split` of python ints."""
    planes = np.array([split(int(code), encoding, bits, pred_bits) for code in codes.flat], codes.dtype)
    return planes[:, 0].reshape(codes.shape), planes[:, 1].reshape(codes.shape)


engines = pytest.mark.parametrize("engine", [split, scalar_split, int_split])
splits = pytest.mark.parametrize(("encoding", "bits", "pred_bits"), SPLITS)
Engine = Callable[..., tuple[NDArray[Any], NDArray[Any]]]


def every_code(encoding: Encoding, bits: int, dtype: type[np.generic] = np.int16) -> NDArray[Any]:
    number_format = NumberFormat(encoding, bits)
    return np.arange(number_format.min_code, number_format.max_code + 1).astype(dtype)


@engines
@splits
def test_joining_the_planes_gives_back_every_code(
    engine: Engine, encoding: Encoding, bits: int, pred_bits: int
) -> None:
    codes = every_code(encoding, bits)
    q_h, q_l = engine(codes, encoding, bits, pred_bits)
    joined = join(q_h, q_l, bits - pred_bits)
    assert (q_h.dtype, q_l.dtype, joined.dtype) == (codes.dtype,) * 3
    np.testing.assert_array_equal(joined, codes)


@engines
@splits
def test_each_plane_fills_its_format_exactly(engine: Engine, encoding: Encoding, bits: int, pred_bits: int) -> None:
    planes = engine(every_code(encoding, bits), encoding, bits, pred_bits)
    for plane, number_format in zip(planes, plane_formats(encoding, bits, pred_bits), strict=True):
        assert sorted(set(plane.tolist())) == list(range(number_format.min_code, number_format.max_code + 1))


@engines
@pytest.mark.parametrize(
    ("encoding", "code", "planes"),
    [  # 4 bits, 2 of them predict; worked by hand
        (Encoding.UNSIGNED, 0b1101, (0b11, 0b01)),
        (Encoding.UNSIGNED, 15, (3, 3)),
        (Encoding.SIGN_MAGNITUDE, 13, (3, 1)),
        (Encoding.SIGN_MAGNITUDE, -13, (-3, -1)),  # toward zero: both planes carry the sign
        (Encoding.SIGN_MAGNITUDE, -3, (0, -3)),
        (Encoding.SIGN_MAGNITUDE, -4, (-1, 0)),
        (Encoding.TWOS_COMPLEMENT, -8, (-2, 0)),
        (Encoding.TWOS_COMPLEMENT, -3, (-1, 1)),  # toward -inf: -3 = -4 + 1
        (Encoding.TWOS_COMPLEMENT, -1, (-1, 3)),
        (Encoding.TWOS_COMPLEMENT, 7, (1, 3)),
    ],
)
def test_each_encoding_truncates_its_own_way(
    engine: Engine, encoding: Encoding, code: int, planes: tuple[int, int]
) -> None:
    q_h, q_l = engine(np.array([code], np.int8), encoding, 4, 2)
    assert (int(q_h[0]), int(q_l[0])) == planes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, np.int32, np.int64])
@pytest.mark.parametrize("encoding", [Encoding.UNSIGNED, Encoding.SIGN_MAGNITUDE])
def test_planes_keep_the_dtype_and_shape_of_the_codes(dtype: type[np.generic], encoding: Encoding) -> None:
    codes = np.arange(128).reshape(2, 64).astype(dtype)
    for plane in split(codes, encoding, 7, 3):
        assert (plane.dtype, plane.shape) == (np.dtype(dtype), (2, 64))
    q_h, q_l = split(codes, encoding, 7, 3)
    np.testing.assert_array_equal(q_h.astype(int) * 16 + q_l, codes)


def test_no_codes_split_into_no_planes() -> None:
    assert [plane.shape for plane in split(np.zeros((0, 3), np.int16), Encoding.UNSIGNED, 3, 2)] == [(0, 3), (0, 3)]


@engines
@pytest.mark.parametrize("pred_bits", [-1, 0, 4, 5])
def test_a_split_that_leaves_a_plane_empty_is_refused(engine: Engine, pred_bits: int) -> None:
    with pytest.raises(ValueError, match=rf"pred_bits must be between 0 and bits = 4, exclusive, not {pred_bits}"):
        engine(np.array([1], np.int16), Encoding.UNSIGNED, 4, pred_bits)


@engines
@pytest.mark.parametrize("encoding", Encoding)
def test_a_code_beyond_its_format_is_refused(engine: Engine, encoding: Encoding) -> None:
    number_format = NumberFormat(encoding, 4)
    for code in (number_format.min_code - 1, number_format.max_code + 1):
        with pytest.raises(ValueError, match=rf"4-bit {encoding.value} codes must be .*, not {code}"):
            engine(np.array([code], np.int16), encoding, 4, 2)


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="codes must be an integer array, not float32"):
        split(np.zeros(3, np.float32), Encoding.UNSIGNED, 4, 2)

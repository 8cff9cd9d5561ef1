"""The 8-bit convolution of codes against sums in float64, what it does not take, and the CPUs that lack it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from pgsim.arith.formats import Encoding, NumberFormat  # noqa: E402
from pgsim.nn import eight_bit  # noqa: E402
from pgsim.nn.eight_bit import as_bytes, convolve, sums_are_exact  # noqa: E402
from pgsim.nn.functional import Gating, dense_conv2d, gated_conv2d  # noqa: E402
from pgsim.nn.product import Convolution, Matrix, Product, narrowed  # noqa: E402

INT8 = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    sums_are_exact.cache_clear()
    yield
    sums_are_exact.cache_clear()


@given(
    channels=st.integers(1, 70),
    filters=st.integers(1, 40),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    bits=st.integers(1, 8),
    extreme=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_sums_are_the_integers_of_float64(
    channels: int, filters: int, kernel: int, stride: int, dilation: int, bits: int, extreme: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = 2**bits - 1 if extreme else 0
    codes = torch.randint(low, 2**bits, (2, channels, 6, 6), generator=generator).float()
    codes = codes.to(memory_format=torch.channels_last)
    w_codes = torch.randint(-127, 128, (filters, channels, kernel, kernel), generator=generator).float()
    if extreme:
        w_codes = torch.where(w_codes < 0, -127.0, 127.0)
    padding = kernel // 2
    exact = F.conv2d(codes.double(), w_codes.double(), None, stride, padding, dilation)
    sums = convolve(codes.to(torch.uint8), w_codes, (stride, stride), (padding, padding), (dilation, dilation))
    assert sums.dtype == torch.float32
    assert torch.equal(sums.double(), exact)


def seen(*shape: int, channels_last: bool = True) -> Tensor:
    """Codes from 0 to 255 in every order of memory."""
    codes = torch.arange(math.prod(shape)).remainder(256).float().view(shape)
    return codes.to(memory_format=torch.channels_last) if channels_last else codes


def test_codes_that_lie_channels_last_are_narrowed_to_themselves() -> None:
    codes = seen(2, 24, 9, 7)
    found = as_bytes(codes)
    assert found.dtype == torch.uint8
    assert found.stride() == codes.stride()
    assert torch.equal(found.float(), codes)


@pytest.mark.parametrize("value", [-1.0, 0.5, 255.5, 256.0, 4e9, float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_byte_stays_what_it_is(value: float) -> None:
    codes = seen(2, 24, 9, 7)
    codes[1, 23, 8, 6] = value
    assert as_bytes(codes) is codes


@pytest.mark.parametrize(
    ("codes", "product", "act", "weights", "dtype"),
    [
        (seen(2, 24, 9, 7, channels_last=False), Convolution(), 8, INT8, torch.float32),
        (seen(2, 24, 9, 7).double(), Convolution(), 8, INT8, torch.float32),
        (seen(2, 24, 9, 7), Convolution(groups=24), 8, INT8, torch.float32),
        (seen(2, 24, 9, 7), Convolution(), 8, INT8, torch.float64),
        (seen(2, 24, 9, 7), Convolution(), 9, INT8, torch.float32),
        (seen(2, 24, 9, 7), Convolution(), 8, NumberFormat(Encoding.SIGN_MAGNITUDE, 8), torch.float32),
        (seen(2, 24, 9, 7), Matrix(), 8, INT8, torch.float32),
    ],
    ids=["rows", "float64", "groups", "sums beyond 2^24", "9 bits", "weights to 255", "matrix"],
)
def test_what_8_bit_convolutions_do_not_take_stays_float(
    codes: Tensor, product: Product, act: int, weights: NumberFormat, dtype: torch.dtype
) -> None:
    assert narrowed(product, codes, dtype, NumberFormat(Encoding.UNSIGNED, act), weights) is codes


def test_signed_codes_stay_float_and_bytes_of_8_bit_layers_do_not() -> None:
    codes = seen(2, 24, 9, 7).clamp_max(127)
    assert narrowed(Convolution(), codes, torch.float32, INT8, INT8) is codes
    assert narrowed(Convolution(), codes, torch.float32, NumberFormat(Encoding.UNSIGNED, 8), INT8).dtype == torch.uint8


def test_both_phases_of_a_gated_layer_are_summed_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sums_are_exact():
        pytest.skip("this CPU has no exact 8-bit convolution")
    called = []

    def counted(codes: Tensor, *args: Any) -> Tensor:
        called.append(codes)
        return convolve(codes, *args)

    monkeypatch.setattr(eight_bit, "convolve", counted)
    codes, weight = seen(2, 24, 9, 7), torch.ones(4, 24, 3, 3)
    out, mask = gated_conv2d(codes, weight, torch.zeros(4), 1.0, act_bits=8, gating=Gating(5))
    assert [plane.dtype for plane in called] == [torch.uint8] * 2
    assert torch.equal(called[0] * 8 + called[1], codes)
    assert bool(mask.all())
    assert torch.equal(out, dense_conv2d(codes.contiguous(), weight, 1.0, act_bits=8))
    assert len(called) == 2


def test_a_cpu_that_saturates_or_lacks_the_operation_goes_through_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = seen(1, 3, 4, 4)

    def lacking(*_: object) -> Tensor:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(eight_bit, "convolve", lacking)
    assert not sums_are_exact()
    assert as_bytes(codes) is codes
    sums_are_exact.cache_clear()

    def saturating(*args: Any) -> Tensor:
        return convolve(*args).clamp(-32768, 32767)

    monkeypatch.setattr(eight_bit, "convolve", saturating)
    assert not sums_are_exact()
    assert as_bytes(codes) is codes

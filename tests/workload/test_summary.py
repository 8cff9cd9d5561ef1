"""Sparsity is counted by output and by MAC, exactly."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from pgsim.workload.summary import gated_averages, layer_sparsity
from tests.build_trace import build_trace


def test_sparsity_is_the_share_of_outputs_that_are_not_updated() -> None:
    trace = build_trace()
    for index, count in enumerate(layer_sparsity(trace)):
        mask = trace.tensors(index).mask
        if mask is None:
            assert count.sparsity is None
            assert count.updated == count.outputs
        else:
            assert count.sparsity == Fraction(int((~mask).sum()), mask.size)


def test_both_weightings_on_two_layers_by_hand() -> None:
    keep, zero = (count for count in layer_sparsity(build_trace())[1:3])
    keep = dataclasses.replace(keep, outputs=512, updated=128)  # 36 MACs an output, 3/2 bits
    zero = dataclasses.replace(zero, outputs=512, updated=384)  # 4 MACs an output, 3/1 bits
    means = gated_averages([keep, zero])
    assert means is not None
    assert means.sparsity_by_output == Fraction(1, 2)
    assert means.sparsity_by_mac == (Fraction(3, 4) * 36 + Fraction(1, 4) * 4) / 40
    assert means.bits_by_output == (Fraction(9, 4) + Fraction(10, 4)) / 2
    assert means.bits_by_mac == (Fraction(9, 4) * 36 + Fraction(10, 4) * 4) / 40


def test_a_network_without_gates_has_no_means() -> None:
    counts = [count for count in layer_sparsity(build_trace()) if count.layer.gate is None]
    assert gated_averages(counts) is None

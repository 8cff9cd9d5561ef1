"""Every accuracy that the paper states, as data: Tables 1, 2, 3, 4, 5 and 7 (arXiv 2002.07136).

Sparsities and accuracies in percent. The paper rounds B_avg wrongly in four rows (exact: 4.856, 4.756, 4.162, 2.056),
so that B_avg is compared within 0.1. Its sparsities count outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Method(Enum):
    """How a network's activations are quantised; the values are the paper's names."""

    FLOAT = "float"
    UQ = "UQ"  # uniform quantisation
    PACT = "PACT"
    PG = "PG"
    PG_DENSE_BP = "PG, dense BP"  # without sparse back-propagation
    FIX_THRESHOLD = "Fix-Threshold"
    SEERNET = "SeerNet"


@dataclass(frozen=True)
class Claim:
    """One network in one row of a table; None where the paper gives nothing.

    `bits` is (B, B_hb), both the same where nothing is gated, None for a float network. `threshold` is Table 3's fixed
    threshold, and that of the row of Table 1 with the same figures. `score` is top-1 accuracy in percent, or, on Penn
    Treebank, perplexity per word.
    """

    table: int
    network: str
    dataset: str
    method: Method
    bits: tuple[int, int] | None
    sparsity: float | None = None
    b_avg: float | None = None
    score: float | None = None
    threshold: float | None = None


PTB, CIFAR, IMAGENET = "Penn Treebank", "CIFAR-10", "ImageNet"
TEST_SET_SIZES = {PTB: 82_429, CIFAR: 10_000, IMAGENET: 50_000}
"""Words predicted (all but the first of Mikolov's test text) or images."""
SHIFTNET, RESNET20, RESNET32, RESNET56 = "shiftnet20", "resnet20", "resnet32", "resnet56"
SHUFFLENET, LSTM = "shufflenetv2_x0.5", "lstm300"
FORMS = {("shufflenetv2_x0.5_cifar", CIFAR): SHUFFLENET}
"""Forms of the paper's networks for another data set than the paper's: (network, data set) -> the paper's network."""

_FLOAT = [
    (1, SHIFTNET, CIFAR, 89.4), (1, RESNET20, CIFAR, 91.7), (1, SHUFFLENET, IMAGENET, 59.0), (5, LSTM, PTB, 110.1),
    (7, RESNET32, CIFAR, 92.4), (7, RESNET56, CIFAR, 92.9),
]  # fmt: skip

_UNIFORM = [  # table, network, data set, bits, UQ, PACT
    (1, SHIFTNET, CIFAR, 8, 89.1, 89.0), (1, SHIFTNET, CIFAR, 4, 87.3, 87.5), (1, SHIFTNET, CIFAR, 2, 77.8, 82.9),
    (1, RESNET20, CIFAR, 8, 91.6, 91.2), (1, RESNET20, CIFAR, 4, 91.1, 90.9), (1, RESNET20, CIFAR, 2, 84.0, 90.1),
    (1, SHUFFLENET, IMAGENET, 8, 59.1, 59.1), (1, SHUFFLENET, IMAGENET, 6, 57.8, 57.1),
    (1, SHUFFLENET, IMAGENET, 5, 57.0, 56.6),
    (5, LSTM, PTB, 8, 109.8, None), (5, LSTM, PTB, 4, 110.8, None), (5, LSTM, PTB, 2, 124.9, None),
    (7, RESNET32, CIFAR, 8, 92.3, 91.9), (7, RESNET32, CIFAR, 4, 92.0, 91.6),
    (7, RESNET56, CIFAR, 8, 92.9, 92.5), (7, RESNET56, CIFAR, 4, 92.3, 92.1), (7, RESNET56, CIFAR, 2, 88.5, 91.8),
]  # fmt: skip

_GATED = [  # table, network, data set, bits, PG: Sp, B_avg, score; Fix-Threshold: the same, or None
    (1, SHIFTNET, CIFAR, (5, 3), (55.5, 3.9, 89.1), (48.8, 4.0, 74.3)),
    (1, SHIFTNET, CIFAR, (5, 3), (96.3, 3.1, 88.6), (67.8, 3.6, 67.0)),
    (1, SHIFTNET, CIFAR, (3, 1), (71.9, 1.6, 84.5), (10.1, 2.8, 64.3)),
    (1, RESNET20, CIFAR, (4, 3), (78.2, 3.2, 91.7), (58.7, 3.4, 88.3)),
    (1, RESNET20, CIFAR, (3, 2), (90.1, 2.1, 91.2), (71.0, 2.3, 74.2)),
    (1, RESNET20, CIFAR, (2, 1), (71.5, 1.3, 90.6), (21.6, 1.8, 71.9)),
    (1, SHUFFLENET, IMAGENET, (6, 4), (57.2, 4.8, 59.7), (52.6, 4.9, 33.6)),
    (1, SHUFFLENET, IMAGENET, (6, 4), (62.2, 4.7, 59.3), (58.5, 4.8, 32.7)),
    (1, SHUFFLENET, IMAGENET, (5, 3), (41.9, 4.1, 58.0), (40.4, 4.2, 27.7)),
    (5, LSTM, PTB, (4, 2), (48.4, 3.0, 108.5), None),
    (5, LSTM, PTB, (4, 2), (54.9, 2.9, 109.3), None),
    (5, LSTM, PTB, (3, 1), (53.0, 1.9, 118.8), None),
    (7, RESNET32, CIFAR, (3, 2), (96.3, 2.0, 92.0), (94.4, 2.0, 45.6)),
    (7, RESNET56, CIFAR, (4, 3), (93.0, 3.1, 93.0), (91.0, 3.1, 90.2)),
    (7, RESNET56, CIFAR, (3, 2), (98.2, 2.0, 92.5), (96.1, 2.0, 50.0)),
    (7, RESNET56, CIFAR, (2, 1), (90.4, 1.1, 92.0), (86.9, 1.1, 14.2)),
]

_SEERNET = [
    (SHIFTNET, CIFAR, (12, 8), 49.7, 14.0, 85.4), (RESNET20, CIFAR, (6, 4), 51.1, 6.9, 91.2),
    (SHUFFLENET, IMAGENET, (8, 6), 30.8, 11.5, 58.9),
]  # fmt: skip

_FIXED = [  # threshold, Sp, B_avg, top-1: ResNet-20 3/2
    (3, 86.0, 2.1, 65.9), (2, 80.2, 2.2, 70.7), (1, 71.0, 2.3, 74.2), (0, 56.7, 2.4, 75.8), (-1, 35.2, 2.6, 83.5),
    (-2, 24.5, 2.8, 86.9), (-4, 13.4, 2.9, 88.7),
]  # fmt: skip

_SPARSE_BP = [  # network, data set, bits, Sp and B_avg without, with sparse back-propagation, at equal accuracy
    (SHIFTNET, CIFAR, (5, 3), (49.3, 4.0), (55.5, 3.9)), (SHIFTNET, CIFAR, (5, 3), (84.0, 3.3), (96.3, 3.1)),
    (RESNET20, CIFAR, (4, 3), (58.2, 3.4), (78.2, 3.2)), (RESNET20, CIFAR, (3, 2), (76.5, 2.2), (90.1, 2.1)),
    (SHUFFLENET, IMAGENET, (6, 4), (36.6, 5.3), (57.2, 4.8)), (SHUFFLENET, IMAGENET, (6, 4), (43.1, 5.1), (62.2, 4.7)),
]  # fmt: skip


def _all() -> Iterator[Claim]:
    for table, network, data, score in _FLOAT:
        yield Claim(table, network, data, Method.FLOAT, None, score=score)
    for table, network, data, bits, uniform, pact in _UNIFORM:
        yield Claim(table, network, data, Method.UQ, (bits, bits), b_avg=bits, score=uniform)
        if pact is not None:
            yield Claim(table, network, data, Method.PACT, (bits, bits), b_avg=bits, score=pact)
    for table, network, data, pair, gated, fixed in _GATED:
        yield Claim(table, network, data, Method.PG, pair, *gated)
        if fixed is not None:
            known = [t for t, *same in _FIXED if (network, pair, *same) == (RESNET20, (3, 2), *fixed)]
            yield Claim(table, network, data, Method.FIX_THRESHOLD, pair, *fixed, threshold=next(iter(known), None))
    for network, data, pair, sparsity, b_avg, score in _SEERNET:
        yield Claim(2, network, data, Method.SEERNET, pair, sparsity, b_avg, score)
    for threshold, sparsity, b_avg, score in _FIXED:
        yield Claim(3, RESNET20, CIFAR, Method.FIX_THRESHOLD, (3, 2), sparsity, b_avg, score, threshold)
    for network, data, pair, without, with_it in _SPARSE_BP:
        yield Claim(4, network, data, Method.PG_DENSE_BP, pair, *without)
        yield Claim(4, network, data, Method.PG, pair, *with_it)


CLAIMS: tuple[Claim, ...] = tuple(_all())
TABLES: dict[int, str] = {
    1: "Table 1: Precision Gating, Fix-Threshold, uniform quantisation and PACT",
    2: "Table 2: SeerNet, which computes an updated output anew: B_avg = B_hb + (1 - Sp) B",
    3: "Table 3: fixed thresholds, ResNet-20 3/2",
    4: "Table 4: sparsity without and with sparse back-propagation, at equal accuracy",
    5: "Table 5: LSTM on Penn Treebank, perplexity per word",
    7: "Table 7: ResNet-32 and ResNet-56",
}

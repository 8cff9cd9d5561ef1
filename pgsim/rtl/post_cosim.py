"""What the post-processing unit left after a layer, held against the integers that the layer's post steps give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.post import check_width
from pgsim.errors import InputError
from pgsim.rtl.bench import Bench, Events
from pgsim.rtl.cosim import Comparison, Difference, differing_bits
from pgsim.rtl.post_plan import Keeper, PostPlan, keepers
from pgsim.rtl.post_unit import Select
from pgsim.workload.layer import Layer, Logits, Requantise, SaveShortcut

Ints = NDArray[np.int64]

WORDS = {
    Select.SHORTCUTS: "shortcut {}",
    Select.HIGH_PLANE: "codes {}, high plane, ",
    Select.LOW_PLANE: "codes {}, low plane, ",
    Select.LOGITS: "logits {}",
}
KINDS = {SaveShortcut: "shortcuts", Requantise: "codes", Logits: "logits"}


def compare_kept(
    bench: Bench, events: Events, plan: PostPlan, layer: Layer, first: int, expected: Mapping[str, Ints]
) -> Comparison:
    """Compare every tensor that the layer keeps, in the unit's memories, with `expected`, int64 [N, K, P, Q] by name.

    `first` is the batch's first image among those in memory. How many words each memory took is compared, too, and that
    the unit found a fault exactly where a shortcut does not fit its bits: such a word is not to be trusted, and not
    compared.
    """
    kept = bits = 0
    found: list[Difference] = []
    for step in keepers(layer):
        images = len(expected[step.name])
        for memory, wanted in plan.words(step, expected[step.name]).items():
            words = bench.read(memory, plan.addresses(step.name, first, images))
            numbers = plan.numbers(step.name, memory, words)
            there = _fits(step, wanted)
            kept += int(there.sum())
            wrong = np.argwhere((numbers != wanted) & there)
            if len(wrong):
                bits += differing_bits(numbers[there], wanted[there])
                where = tuple(int(i) for i in wrong[0])
                what = WORDS[memory].format(step.name)
                found.append(_difference(what, where, int(numbers[where]), int(wanted[where])))
    counts = [sum(expected[s.name].size for s in keepers(layer) if isinstance(s, kind)) for kind in KINDS]
    names = [f"words of {what} written" for what in KINDS.values()]
    facts = [*zip(names, events.words_kept.tolist(), counts, strict=True)]
    fault = bool(unfit(layer, expected))
    facts.append(("faults of the post-processing unit", int(events.post_fault), int(fault)))
    wrong_facts = [_difference(what, (), rtl, reference) for what, rtl, reference in facts if rtl != reference]
    found += wrong_facts
    return Comparison(0, 0, bits, len(wrong_facts), len(facts), found[0] if found else None, kept)


def unfit(layer: Layer, kept: Mapping[str, Ints]) -> str:
    """Say which shortcut that the layer keeps does not fit its bits, if any; `kept` int64 [N, K, P, Q] by name."""
    for step in layer.post:
        if isinstance(step, SaveShortcut):
            try:
                check_width(kept[step.name], step.bits, step.signed, f"shortcut {step.name}")
            except InputError as error:
                return str(error)
    return ""


def _fits(step: Keeper, values: Ints) -> NDArray[np.bool_]:
    if not isinstance(step, SaveShortcut):
        return np.ones(values.shape, np.bool_)
    low = -(2 ** (step.bits - 1)) if step.signed else 0
    return (values >= low) & (values < low + 2**step.bits)


def _difference(what: str, where: tuple[int, ...], rtl: int, reference: int) -> Difference:
    return Difference(what, None, where, str(rtl), str(reference), "integer reference")


def read_codes(bench: Bench, plan: PostPlan, name: str, images: int) -> Ints:
    """Return the codes that the unit's planes hold, int64 [N, K, P, Q]."""
    where = plan.addresses(name, 0, images)
    return plan.codes(name, bench.read(Select.HIGH_PLANE, where), bench.read(Select.LOW_PLANE, where))


def read_logits(bench: Bench, plan: PostPlan, layer: Layer, images: int) -> dict[str, Ints]:
    """Return the logits that the unit holds of a layer, int64 [N, K, P, Q] by name."""
    names = [step.name for step in layer.post if isinstance(step, Logits)]
    return {name: bench.read(Select.LOGITS, plan.addresses(name, 0, images)) for name in names}

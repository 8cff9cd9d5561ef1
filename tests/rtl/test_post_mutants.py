"""The unit broken on purpose, in ways that are easily written by mistake: the same drawn cases find each.

All mutants are built into one model, in a copy of the sources: `mutant`, a number that the host sets, says which of
them is awake; 0 is none.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import pytest

from pgsim.rtl.post_unit import WRITE
from tests.rtl.post_drawn import ANY, check_case, draw_case
from tests.rtl.post_harness import SOURCES, Machine, source_files

pytestmark = pytest.mark.slow


class Mutant(NamedTuple):
    """A place in a file, the expression between @ and @, and what stands there by mistake."""

    name: str
    module: str
    right: str
    wrong: str


MUTANTS = (
    Mutant("rounds by a whole unit", "stage", "@WIDE_BITS'(1) << (shift - 1'b1)@", "WIDE_BITS'(1) << shift"),
    Mutant("does not round", "stage", "@WIDE_BITS'(1) << (shift - 1'b1)@", "WIDE_BITS'(0)"),
    Mutant("shifts zeros in", "stage", "VALUE_BITS'(@sum >>> shift@)", "sum >> shift"),
    Mutant("takes a bias as unsigned", "stage", "@WIDE_BITS'(signed'(bias))@", "signed'(WIDE_BITS'(bias))"),
    Mutant("adds something to padded channels", "stage", "if (@!present@)", "1'b0"),
    Mutant("takes shortcuts as unsigned", "stage", "if (@shortcut_signed@)", "1'b0"),
    Mutant("clamps one too high", "stage", "limited = @high@;", "high + 1'b1"),
    Mutant("finds no shortcut too large", "stage", "@in_value < low || in_value > high@", "in_value < low"),
    Mutant("ignores the image", "stage", "@ADDRESS_BITS'(in_image)@ * image_stride", "ADDRESS_BITS'(0)"),
    Mutant("ignores the direction", "stage", "directed = @direction@ ?", "1'b0"),
    Mutant("shares thresholds always", "stage", "in_row(@shared@ ?", "1'b1"),
    Mutant("counts > for >=", "search", "@value[i] >= signed'(threshold)@", "value[i] > signed'(threshold)"),
    Mutant("searches a level more", "search", "@DEPTH_BITS'(i) < depth@", "DEPTH_BITS'(i) < depth + 1'b1"),
    Mutant("forgets the base", "search", "code = @base@ +", "WORD_BITS'(0)"),
    Mutant("floors magnitudes", "split", "negative = @sign_magnitude && code < 0@;", "1'b0"),
    Mutant("leaves the low plane its sign off", "split", "@-number_low@", "number_low"),
    Mutant(
        "gives the low plane a bit too few",
        "split",
        "~(@~WORD_BITS'(0) << low_bits@)",
        "~WORD_BITS'(0) << low_bits >> 1",
    ),
    Mutant("loses a window's last value", "pool", "      @merged@\n    };", "finished && !first ? so_far : merged"),
    Mutant("counts a window's values wrong", "pool", "count == @rows_inside * columns_inside@", "1'b1 + rows_inside"),
    Mutant("never starts a window anew", "pool", "<= @finished@ ?", "1'b0"),
    Mutant("takes minima", "pool", "@in_value > so_far@", "in_value < so_far"),
    Mutant("mixes images in a window", "pool", "(@in_image[0]@ ?", "1'b0"),
    Mutant("names windows a row off", "pool", "+ @MAP_BITS'(R)@", "MAP_BITS'(0)"),
    Mutant("queues one window a cycle", "queue", "if (@take[i]@) words", "take[i] && i == 0"),
    Mutant("takes partial sums for outputs", "segments", "in_valid[j] && @complete[j]@", "1'b1"),
    Mutant("takes the column for the row", "stage", "ADDRESS_BITS'(@in_row@) * row_stride", "in_column"),
    Mutant("takes psums as unsigned", "port", "@VALUE_BITS'(in_value)@", "signed'(VALUE_BITS'(unsigned'(in_value)))"),
)
CASES = 120
AWAKE = 15  # the select of a host write that wakes a mutant


def sleeping(folder: Path) -> Path:
    """Write the sources with all mutants asleep into a folder."""
    for path in source_files(SOURCES):
        text = path.read_text()
        if path.stem == "post_package":
            text = text.replace("endpackage", "  int mutant;\n\nendpackage")
        if path.stem == "post_unit":
            wake = f"if (host_write && host_select == {AWAKE}) post_package::mutant <= host_address;"
            text = text.replace("endmodule", f"  always_ff @(posedge clk) {wake}\n\nendmodule")
        for number, (name, module, right, wrong) in enumerate(MUTANTS, 1):
            if path.stem == f"post_{module}":
                before, expression, behind = right.split("@")
                assert text.count(before + expression + behind) == 1, f"{name}: what it breaks must stand there once"
                awake = f"{before}(post_package::mutant == {number} ? ({wrong}) : ({expression})){behind}"
                text = text.replace(before + expression + behind, awake)
        (folder / path.name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(ANY, sleeping(tmp_path_factory.mktemp("mutants")))


def first_found(machine: Machine, mutant: int) -> int | None:
    """Return the first drawn case that a mutant fails, None if it passes all."""
    wake = np.zeros(1, WRITE)
    wake["select"], wake["address"] = AWAKE, mutant
    machine.load(wake)
    for seed in range(CASES):
        random = Random(seed)
        try:
            check_case(machine, draw_case(random), random)
        except AssertionError:
            return seed
    return None


def test_the_cases_find_nothing_while_all_mutants_sleep(machine: Machine) -> None:
    assert first_found(machine, 0) is None


@pytest.mark.parametrize("number", range(1, len(MUTANTS) + 1), ids=lambda number: MUTANTS[number - 1].name)
def test_a_mutant_is_found(machine: Machine, number: int) -> None:
    assert first_found(machine, number) is not None

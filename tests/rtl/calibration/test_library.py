"""Reading a cell library: the text, its Boolean expressions, units, tables and kinds of cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pgsim.errors import InputError
from pgsim.rtl.calibration.boolean import truth_table, variables
from pgsim.rtl.calibration.liberty import parse_group, split_cells
from pgsim.rtl.calibration.library import CellKind, Library

TINY = Path(__file__).parent / "tiny.lib"


@pytest.fixture(scope="module")
def tiny() -> Library:
    return Library([TINY])


def test_groups_attributes_and_their_values_are_read() -> None:
    group = parse_group('a ("x") { b : "c d"; e : 1.5\n f (1, "2"); g () { h : i; } /* j : k; */ g (l) { } }')
    assert (group.kind, group.names) == ("a", ("x",))
    assert group.attributes == {"b": ("c d",), "e": ("1.5",), "f": ("1", "2")}
    assert [(inner.names, inner.attributes) for inner in group.all("g")] == [((), {"h": ("i",)}), (("l",), {})]
    assert (group.text("b"), group.number("e"), group.text("z", "none")) == ("c d", 1.5, "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a () { b : 1;", "Liberty group a must end with a brace, not with the file"),
        ("a () { b 1; }", "Liberty name b must be followed by : or (, not '1'"),
        ("a () { : 1; }", "Liberty statement must begin with a name, not ':'"),
        ("a () { } b () { }", "Liberty text must hold one group, not 2"),
        ("a () { b (1; }", "Liberty name b must have its closing parenthesis"),
    ],
)
def test_text_that_is_no_library_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_group(text)
    assert str(caught.value) == message


def test_cells_are_cut_out_of_a_library_whole() -> None:
    header, cells = split_cells('library (l) {\n cell (A) { pin (B) { } }\n x : 1;\n cell ("C") { }\n}\n')
    assert list(cells) == ["A", "C"]
    assert cells["A"].strip() == "cell (A) { pin (B) { } }"
    assert parse_group(header).attributes == {"x": ("1",)}


@pytest.mark.parametrize(
    ("expression", "ones"),
    [
        ("A", "1357"),
        ("!A", "0246"),
        ("A'", "0246"),
        ("A & B", "37"),
        ("A B", "37"),
        ("A*B + C", "34567"),
        ("A | B & C", "13567"),
        ("A & B ^ C", "35"),
        ("!(A + B)'", "123567"),
        ("(!A) | (!B)", "012456"),
        ("1", "01234567"),
        ("0", ""),
    ],
)
def test_expressions_have_the_value_of_every_state(expression: str, ones: str) -> None:
    table = truth_table(expression, ("A", "B", "C"))  # bit 0 of a state is A
    assert "".join(str(state) for state in np.flatnonzero(table)) == ones


def test_an_expression_names_what_it_reads() -> None:
    assert variables("(A1 & !B[0]) + 1") == {"A1", "B[0]"}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("A & D", "Boolean expression 'A & D' must read a known name, not 'D'"),
        ("(A", "Boolean expression '(A' must close its parenthesis"),
        ("A # B", "Boolean expression 'A # B' must not hold '#'"),
        ("A )", "Boolean expression 'A )' must end after A"),
        ("A &", "Boolean expression 'A &' must read a known name, not ''"),
    ],
)
def test_what_is_no_expression_is_refused(expression: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        truth_table(expression, ("A", "B", "C"))
    assert str(caught.value) == message


def test_a_library_has_its_conditions_and_the_digest_of_its_files(tiny: Library) -> None:
    assert (tiny.voltage_v, tiny.temperature_c) == (2.0, 25.0)
    assert tiny.label.startswith("tiny sha256 ")
    assert tiny.names == ("INV", "XOR_FAST", "XOR_SLOW", "DFF", "GATE_CLOCK", "LATCH")


def test_leakage_is_stated_or_the_mean_of_states_with_rails_added(tiny: Library) -> None:
    assert tiny.cell("INV").leakage_nw == pytest.approx(4e-3)  # pW
    assert tiny.cell("XOR_FAST").leakage_nw == pytest.approx((6 + (2 + 2)) / 2 * 1e-3)
    assert tiny.cell("XOR_SLOW").leakage_nw == 0


def test_a_table_is_linear_between_its_entries_and_ends_where_they_end(tiny: Library) -> None:
    table = tiny.cell("DFF").outputs[0].power[0].tables[0]
    assert table is not None
    # by load (0, 10) fF, then slew (0, 100) ps: (8, 10), (8, 30)
    assert [table.at(0, 0), table.at(100, 0), table.at(100, 10), table.at(50, 5)] == [8, 10, 30, 14]
    assert table.at(1000, 1000) == 30


def test_cells_have_their_kind_and_state(tiny: Library) -> None:
    kinds = {name: tiny.cell(name).kind for name in tiny.names if name != "LATCH"}
    assert kinds == {
        "INV": CellKind.GATE,
        "XOR_FAST": CellKind.GATE,
        "XOR_SLOW": CellKind.GATE,
        "DFF": CellKind.FLIP_FLOP,
        "GATE_CLOCK": CellKind.CLOCK_GATE,
    }
    flip_flop, gate = tiny.cell("DFF"), tiny.cell("GATE_CLOCK")
    assert (flip_flop.clock, flip_flop.state, flip_flop.next_state) == ("CLK", ("IQ", "IQN"), "D")
    assert (gate.clock, gate.state[0], gate.next_state) == ("CLK", "M", "E")


def test_cells_that_cannot_be_simulated_are_refused(tiny: Library) -> None:
    with pytest.raises(InputError, match=r"^cell LATCH must be a gate, a flip-flop or a clock gate: do not let"):
        tiny.cell("LATCH")
    with pytest.raises(InputError, match=r"tiny\.lib: the library must hold cell NAND$"):
        tiny.cell("NAND")

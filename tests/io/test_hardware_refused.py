"""Hardware files that are not what they must be: each with its whole message, file and line included."""

from pathlib import Path

import pytest

from pgsim.errors import InputError
from pgsim.io.hardware import load_accelerator

DENSE = """\
pgsim_hw: 1
name: small
organisation: dense
clock: 500 MHz
technology:
  node: 45 nm
  voltage: 1.0 V
  energy_table: 45nm
array:
  rows: 4
  columns: 4
  multipliers: 2
  act_bits: 8
  weight_bits: 8
  psum_bits: 24
memory:
  activation: {size: 8 KiB}
  weight: {size: 8 KiB}
  output: {size: 8 KiB}
  off_chip: {width: 128 bit, latency: 50, kind: lpddr4}
"""

DECOUPLED = DENSE.replace("dense", "decoupled").replace(
    "memory:\n",
    "update_array: {groups: 2, lanes: 4, queue_depth: 8}\nmemory:\n  activation_lsb: {size: 4 KiB, banks: 4}\n",
)

ARRAY_KEYS = "rows, columns, multipliers, act_bits, weight_bits, weight_encoding, psum_bits, overflow"

REFUSED = {
    "a table beside itself": (
        "energy_table: 45nm",
        "energy_table: 45nm\n  beside: [7nm, 45nm]",
        "bad.yaml:9: technology.beside must name other energy tables, each once, not '45nm' again",
    ),
    # YAML itself
    "syntax": (
        "rows: 4",
        "rows: [4",
        "bad.yaml:11: the hardware file must be valid YAML: expected ',' or ']', but got ':'",
    ),
    "tab": (
        "  rows: 4",
        "\trows: 4",
        "bad.yaml:10: the hardware file must be valid YAML: found character '\\t' that cannot start any token",
    ),
    "two documents": (
        "memory:",
        "---\nmemory:",
        "bad.yaml:16: the hardware file must be valid YAML: but found another document",
    ),
    "anchor": ("rows: 4", "rows: &r 4", "bad.yaml:10: the file must have no anchors, not &r"),
    "alias": ("rows: 4", "rows: *r", "bad.yaml:10: the file must have no aliases, not *r"),
    "merge key": ("  rows: 4", "  <<: {rows: 4}", f"bad.yaml:10: array must have no key '<<' (known: {ARRAY_KEYS})"),
    "tag": (
        "name: small",
        "name: !!python/object:os.system x",
        "bad.yaml:2: the file must have no tags, not tag:yaml.org,2002:python/object:os.system",
    ),
    "control character": (
        "name: small",
        "name: sm\x07all",
        "bad.yaml:2: the hardware file must have no control characters, not U+0007",
    ),
    "duplicate key": (
        "  columns: 4",
        "  columns: 4\n  rows: 8",
        "bad.yaml:12: array.rows must be given once, not again (first in line 10)",
    ),
    "key that is a number": ("  rows: 4", "  4: 4", "bad.yaml:10: a key must be text, not '4'"),
    "deep nesting": (
        "name: small",
        "name: " + "[" * 30 + "]" * 30,
        "bad.yaml:2: the file must have no more than 16 levels, not deeper nesting",
    ),
    # keys
    "unknown key": ("  rows: 4", "  rowz: 4", "bad.yaml:10: array must have no key 'rowz'; did you mean 'rows'?"),
    "unknown key at the top": (
        "name: small",
        "name: small\nclok: 1",
        "bad.yaml:3: the file must have no key 'clok'; did you mean 'clock'?",
    ),
    "unknown key without a close one": (
        "  rows: 4",
        "  xyzzy: 4",
        f"bad.yaml:10: array must have no key 'xyzzy' (known: {ARRAY_KEYS})",
    ),
    "missing key": (
        "  rows: 4\n",
        "",
        "bad.yaml:9: array.rows must be given (R: pixels that the array works on side by side)",
    ),
    "missing section": ("clock: 500 MHz\n", "", "bad.yaml:1: clock must be given (clock frequency, as in 500 MHz)"),
    "missing version": ("pgsim_hw: 1\n", "", "bad.yaml:1: pgsim_hw must be given as the version of the format, 1"),
    "version": (
        "pgsim_hw: 1",
        "pgsim_hw: 2",
        "bad.yaml:1: pgsim_hw must be 1, the version of the format that this pgsim reads, not 2",
    ),
    "section that is a list": (
        "  activation: {size: 8 KiB}",
        "  activation: [8 KiB]",
        "bad.yaml:17: memory.activation must be a mapping of keys, not a list of 1",
    ),
    "section that is empty": (
        "  activation: {size: 8 KiB}",
        "  activation:",
        "bad.yaml:17: memory.activation must be a mapping of keys, not null",
    ),
    # numbers
    "text for a number": (
        "rows: 4",
        'rows: "4"',
        "bad.yaml:10: array.rows must be a whole number from 1 to 1024, not '4'",
    ),
    "no is text": ("rows: 4", "rows: no", "bad.yaml:10: array.rows must be a whole number from 1 to 1024, not 'no'"),
    "bool for a number": (
        "rows: 4",
        "rows: true",
        "bad.yaml:10: array.rows must be a whole number from 1 to 1024, not true",
    ),
    "lanes and a half": (
        "multipliers: 2",
        "multipliers: 1.5",
        "bad.yaml:12: array.multipliers must be a whole number from 1 to 1024, not 1.5",
    ),
    "no lanes": (
        "multipliers: 2",
        "multipliers: 0",
        "bad.yaml:12: array.multipliers must be a whole number from 1 to 1024, not 0",
    ),
    "1e-9 is a number": (
        "latency: 50",
        "latency: 1e-9",
        "bad.yaml:20: memory.off_chip.latency must be a whole number from 0 to 1000000 cycles, not 1e-09",
    ),
    "octal": (
        "rows: 4",
        "rows: 010",
        "bad.yaml:10: a number must be decimal without leading zeros (or quoted, where it is text), not 010",
    ),
    "hexadecimal": (
        "rows: 4",
        "rows: 0x10",
        "bad.yaml:10: a number must be decimal without leading zeros (or quoted, where it is text), not 0x10",
    ),
    "huge": ("rows: 4", "rows: " + "9" * 5000, "bad.yaml:10: a number must have at most 18 digits, not 5000"),
    "infinite": (
        "rows: 4",
        "rows: .inf",
        "bad.yaml:10: array.rows must be a whole number from 1 to 1024, not inf",
    ),
    "more lanes than any chip": (
        "rows: 4\n  columns: 4\n  multipliers: 2",
        "rows: 1024\n  columns: 1024\n  multipliers: 2",
        "bad.yaml:9: array must have at most 1048576 multipliers in all, not 2097152",
    ),
    "act_bits": (
        "act_bits: 8",
        "act_bits: auto",
        "bad.yaml:13: array.act_bits must be a whole number from 1 to 16, or trace, not 'auto'",
    ),
    # quantities
    "wrong unit": (
        "clock: 500 MHz",
        "clock: 500 mW",
        "bad.yaml:4: clock must be a frequency in Hz, kHz, MHz or GHz, not '500 mW'",
    ),
    "missing unit": (
        "clock: 500 MHz",
        "clock: 500",
        "bad.yaml:4: clock must be a frequency in Hz, kHz, MHz or GHz, not 500",
    ),
    "kilobytes that are none": (
        "weight: {size: 8 KiB}",
        "weight: {size: 8 KB}",
        "bad.yaml:18: memory.weight.size must be a size in bit, B, KiB or MiB, not '8 KB'",
    ),
    "negative size": (
        "weight: {size: 8 KiB}",
        "weight: {size: -8 KiB}",
        "bad.yaml:18: memory.weight.size must be a whole number from 1 to 8589934592 bit, not '-8 KiB'",
    ),
    "half a bit": (
        "weight: {size: 8 KiB}",
        "weight: {size: 1.5 bit}",
        "bad.yaml:18: memory.weight.size must be a whole number from 1 to 8589934592 bit, not '1.5 bit'",
    ),
    "no clock": (
        "clock: 500 MHz",
        "clock: 0 MHz",
        "bad.yaml:4: clock must be a number from 0.001 to 20000 MHz, not '0 MHz'",
    ),
    "a clock of a million digits": (
        "clock: 500 MHz",
        f"clock: {'5' * 300} MHz",
        f"bad.yaml:4: clock must be a frequency in Hz, kHz, MHz or GHz, not '{'5' * 59}...",
    ),
    "voltage": (
        "voltage: 1.0 V",
        "voltage: 45 nm",
        "bad.yaml:7: technology.voltage must be a voltage in mV or V, not '45 nm'",
    ),
    "banks that do not divide": (
        "weight: {size: 8 KiB}",
        "weight: {size: 8 KiB, banks: 3}",
        "bad.yaml:18: memory.weight.size must be a multiple of its 3 banks, not 65536 bit",
    ),
    # choices
    "organisation": (
        "organisation: dense",
        "organisation: decoupld",
        "bad.yaml:3: organisation must be decoupled, dense, gated_fused or two_pass (did you mean 'decoupled'?), "
        "not 'decoupld'",
    ),
    "overflow": (
        "psum_bits: 24",
        "psum_bits: 24\n  overflow: clip",
        "bad.yaml:16: array.overflow must be error, saturate or wrap, not 'clip'",
    ),
    "flag": (
        "name: small",
        "name: small\nclock_gating: yes",
        "bad.yaml:3: clock_gating must be true or false, not 'yes'",
    ),
    "name of two lines": (
        "name: small",
        'name: "a\\nb"',
        "bad.yaml:2: name must be one line of printable text, not 'a\\nb'",
    ),
    "name that is empty": ("name: small", 'name: ""', "bad.yaml:2: name must be text of 1 to 80 characters, not ''"),
    "assumed with a colon": (
        "name: small",
        "name: small\nassumed:\n  - clock: 500 MHz",
        "bad.yaml:3: assumed must be a list of lines of text (item 1 must be text of 1 to 400 characters; "
        "quote a line that holds a colon), not a list of 1",
    ),
    # one key against another
    "cooperative on dense": (
        "name: small",
        "name: small\ncooperative: true",
        "bad.yaml:3: cooperative must be false for organisation dense; only decoupled has it",
    ),
    "update array on dense": (
        "memory:",
        "update_array: {groups: 1, lanes: 1, queue_depth: 1}\nmemory:",
        "bad.yaml:16: update_array must be left out for organisation dense; only decoupled has it",
    ),
    "LSB plane on dense": (
        "memory:",
        "memory:\n  activation_lsb: {size: 1 KiB}",
        "bad.yaml:17: memory.activation_lsb must be left out for organisation dense; only decoupled has it",
    ),
    "gate on dense": (
        "name: small",
        "name: small\ngate: zero_prediction",
        "bad.yaml:3: gate must be trace for organisation dense, which has no gate, not zero_prediction",
    ),
}

REFUSED_DECOUPLED = {
    "no update array": (
        "update_array: {groups: 2, lanes: 4, queue_depth: 8}\n",
        "",
        "bad.yaml:1: update_array must be given for organisation decoupled, not missing",
    ),
    "no LSB plane": (
        "  activation_lsb: {size: 4 KiB, banks: 4}\n",
        "",
        "bad.yaml:17: memory.activation_lsb must be given for organisation decoupled, not missing",
    ),
    "queue of no depth": (
        "queue_depth: 8",
        "queue_depth: 0",
        "bad.yaml:16: update_array.queue_depth must be a whole number from 1 to 65536, not 0",
    ),
}


def message_of(folder: Path, text: str | bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    raw = text if isinstance(text, bytes) else text.encode()
    Path("bad.yaml").write_bytes(raw)
    with pytest.raises(InputError) as caught:
        load_accelerator("bad.yaml")
    return str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_file_is_refused_in_these_words(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, expected = REFUSED[case]
    assert DENSE.count(old) >= 1
    assert message_of(tmp_path, DENSE.replace(old, new, 1), monkeypatch) == expected


@pytest.mark.parametrize("case", REFUSED_DECOUPLED)
def test_a_wrong_decoupled_file_is_refused_in_these_words(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, expected = REFUSED_DECOUPLED[case]
    assert DECOUPLED.count(old) == 1
    assert message_of(tmp_path, DECOUPLED.replace(old, new), monkeypatch) == expected


@pytest.mark.parametrize("text", [DENSE, DECOUPLED])
def test_the_files_that_the_wrong_ones_are_made_from_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(text)
    assert load_accelerator(tmp_path / "good.yaml").name == "small"


def test_every_message_is_one_line() -> None:
    for _, _, expected in [*REFUSED.values(), *REFUSED_DECOUPLED.values()]:
        assert "\n" not in expected

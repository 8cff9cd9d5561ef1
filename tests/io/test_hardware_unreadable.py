"""Hardware files that are not there, are no mapping, or had bytes changed: one line each, and no other error."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgsim.errors import InputError
from pgsim.io.hardware import load_accelerator
from tests.io.test_hardware_refused import DECOUPLED, DENSE, message_of

YAML_PIECES = [
    b"[",
    b"{",
    b"}",
    b": ",
    b"- ",
    b"&a ",
    b"*a",
    b"!",
    b"|",
    b">",
    b"'",
    b'"',
    b"\n",
    b"\t",
    b"#",
    b"%",
    b"\x00",
]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "bad.yaml: the hardware file must hold keys, not nothing"),
        (b"# only words\n", "bad.yaml: the hardware file must hold keys, not nothing"),
        (b"- a\n- b\n", "bad.yaml:1: the file must be a mapping of keys, not a list of 2"),
        (b"7\n", "bad.yaml:1: the file must be a mapping of keys, not 7"),
        (b"name: caf\xe9\n", "bad.yaml:1: the hardware file must be UTF-8 text, not byte 0xE9"),
        (b"#" * (1 << 20) + b"\n", "bad.yaml: the hardware file must have at most 1048576 bytes, not 1048577"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_these_words(
    raw: bytes, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message_of(tmp_path, raw, monkeypatch) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "dense_int9",
            "dense_int9: the hardware file must be a file or a shipped name, not missing; did you mean 'dense_int8'?",
        ),
        (
            "predictvenet.yaml",
            "predictvenet.yaml: the hardware file must be a file or a shipped name, not missing; "
            "did you mean 'predictivenet'?",
        ),
        ("folder", "folder: the hardware file must be a file, not a folder"),
        (
            "xyzzy",
            "xyzzy: the hardware file must be a file or a shipped name, not missing (shipped: dense_int16, dense_int8, "
            "dense_uniform, fracbnn_two_pass, gated_fused, predictivenet, predictivenet_cooperative, "
            "predictivenet_zero)",
        ),
        (
            "folder/dense_int8.yaml",
            "folder/dense_int8.yaml: the hardware file must be a file or a shipped name, not missing; "
            "did you mean 'dense_int8'?",
        ),
    ],
)
def test_a_file_that_is_not_there_is_refused_in_these_words(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(InputError) as caught:
        load_accelerator(name)
    assert str(caught.value) == expected


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_bytes_changed_loads_or_is_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([DENSE, DECOUPLED])).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4) | st.sampled_from(YAML_PIECES))
    path = tmp_path / "some.yaml"
    path.write_bytes(raw)
    message = ""
    try:
        load_accelerator(path)
    except InputError as error:
        message = str(error)
    assert not message or message.startswith(f"{path}:")
    assert "\n" not in message

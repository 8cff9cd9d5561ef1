"""Files of results: exact, whole or not at all, and refused before the work where they cannot be written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pgsim.errors import InputError
from pgsim.io.export import check_outputs, write_results
from pgsim.results.document import document
from pgsim.results.frame import columns, frame, rows
from tests.results.made import BIG, made_run

RUNS = [made_run(), made_run("quick", cycles=60)]


def test_csv_reads_back_as_the_same_values(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_results(path, RUNS)
    table = [row for run in RUNS for row in rows(run)]
    read = {"int64": int, "float64": float, "string": str, "bool": lambda text: {"true": True, "false": False}[text]}
    with open(path, newline="") as stream:
        back = list(csv.DictReader(stream))
    assert len(back) == len(table)
    for got, row in zip(back, table, strict=True):
        for column in columns(table):
            text, value = got[column.name], row[column.name]
            assert (text == "") if value in (None, "") else (read[column.type](text) == value), column.name
    assert back[0]["weight_write_bits"] == str(BIG)


def test_parquet_reads_back_as_the_same_frame_with_types_and_meanings(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_results(path, RUNS)
    schema = pq.read_schema(path)
    assert str(schema.field("cycles").type) == "int64"
    assert schema.field("cycles").metadata == {b"about": b"cycles"}
    back = pd.read_parquet(path, dtype_backend="numpy_nullable")
    pd.testing.assert_frame_equal(back, frame(RUNS), check_dtype=False)
    assert int(back["weight_write_bits"].iloc[0]) == BIG


def test_json_reads_back_as_the_document(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_results(path, RUNS)
    assert json.loads(path.read_text()) == document(RUNS)


def test_an_earlier_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    write_results(path, RUNS)
    assert path.read_text().startswith("accelerator,organisation,row,index,layer,")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "got"), [("out.txt", "'.txt'"), ("out", "without a suffix"), ("a.CSV", "'.CSV'")])
def test_an_unknown_suffix_is_refused_with_those_that_are_known(tmp_path: Path, name: str, got: str) -> None:
    path = tmp_path / name
    with pytest.raises(InputError) as caught:
        check_outputs([path])
    assert str(caught.value) == f"{path}: the output must end in .csv, .json, .parquet, not {got}"


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "out.csv"
    with pytest.raises(InputError, match=r"missing/out\.csv: the output's folder must be there, not missing$"):
        check_outputs([tmp_path / "fine.csv", path])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_is_refused_before_the_work() -> None:
    with pytest.raises(InputError, match=r"^/proc/out\.json: the output must be writable, not refused: "):
        check_outputs(["/proc/out.json"])


def test_checking_leaves_an_earlier_file_and_its_folder_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    check_outputs([path])
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("old")
    code = f"""
import resource, sys
from pgsim.errors import InputError
from pgsim.io.export import write_results
from tests.results.made import made_run
import pyarrow.parquet
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))  # the disk takes 2 KiB
try:
    write_results({str(path)!r}, [made_run()])
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}: the output must be writable, not refused: File too large\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_count_beyond_64_bits_is_refused_for_parquet_and_written_to_csv(tmp_path: Path) -> None:
    run = made_run()
    object.__setattr__(run.layers[0].counts, "macs_useful", 2**63)
    with pytest.raises(
        InputError, match=r"^macs_useful must fit in 64 bits for Parquet; write \.csv or \.json instead$"
    ):
        write_results(tmp_path / "out.parquet", [run])
    assert list(tmp_path.iterdir()) == []
    write_results(tmp_path / "out.csv", [run])
    assert str(2**63) in (tmp_path / "out.csv").read_text()

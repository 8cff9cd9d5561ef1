"""Write runs to files: CSV and Parquet (a row a layer and three of totals), JSON (everything).

An output is checked before the work whose results it is to hold, and is written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from pgsim.errors import InputError
from pgsim.io.atomic import check_writable, replacing
from pgsim.io.strict import show_path
from pgsim.results.document import document
from pgsim.results.frame import Row, Value, columns, rows
from pgsim.results.run import RunResult

INT64_MAX = 2**63 - 1


def check_outputs(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse, before anything is run, outputs whose suffix is unknown or that cannot be written.

    Raises InputError, one line, naming the first of `paths` that is refused.
    """
    for path in paths:
        _writer(path)
        check_writable(path)


def write_results(path: str | os.PathLike[str], results: Sequence[RunResult]) -> None:
    """Write runs to `path`, in the format of its suffix; an earlier file is replaced whole or stays as it was.

    Raises InputError for an unknown suffix or a file that cannot be written.
    """
    write = _writer(path)
    with replacing(path) as stream:
        write(stream, results)


def _writer(path: str | os.PathLike[str]) -> Callable[[BinaryIO, Sequence[RunResult]], None]:
    suffix = Path(path).suffix
    if suffix not in WRITERS:
        got = f"{suffix!r}" if suffix else "without a suffix"
        raise InputError(f"{show_path(path)}: the output must end in {', '.join(WRITERS)}, not {got}")
    return WRITERS[suffix]


def _write_csv(stream: BinaryIO, results: Sequence[RunResult]) -> None:
    table = _table(results)
    names = [column.name for column in columns(table)]
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in table)
    text.flush()
    text.detach()


def _cell(value: Value) -> str:
    """Integers and floats so that they read back exactly; true and false in lower case; nothing for None."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write_json(stream: BinaryIO, results: Sequence[RunResult]) -> None:
    text = json.dumps(document(results), indent=1, ensure_ascii=False, allow_nan=False)
    stream.write(text.encode() + b"\n")


def _write_parquet(stream: BinaryIO, results: Sequence[RunResult]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _table(results)
    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    arrays, fields = [], []
    for column in columns(table):
        values = [row.get(column.name) for row in table]
        if column.type == "int64" and any(value is not None and int(value) > INT64_MAX for value in values):
            raise InputError(f"{column.name} must fit in 64 bits for Parquet; write .csv or .json instead")
        arrays.append(pa.array(values, types[column.type]))
        fields.append(pa.field(column.name, types[column.type], metadata={"about": column.about}))
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), stream)


def _table(results: Sequence[RunResult]) -> list[Row]:
    return [row for result in results for row in rows(result)]


WRITERS = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
"""Suffix -> what writes it."""

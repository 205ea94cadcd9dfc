"""Records of a local file, read strictly: what is not as it should be is one line with the file, the row and its line.

CSV and JSON are read here and not by pandas and pyarrow, which shift columns, guess types and rewrite values.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_BATCH = 10_000  # records turned into Python objects at a time
_NO_DATA = {
    b"version https://git-lfs": "a Git LFS pointer and not the data: fetch the file itself (git lfs pull)",
    b"\x1f\x8b": "compressed: unpack it first",
    b"PK\x03\x04": "compressed: unpack it first",
    b"<!doctype": "a web page and not the data: download the file itself",
    b"<html": "a web page and not the data: download the file itself",
}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Table:
    """Records, each with what an error calls it. `records` reads them anew at each call."""

    fields: list[str]
    rows: int
    records: Callable[[], Iterator[tuple[str, Mapping[str, Any]]]]


def read(path: Path) -> Table:
    """The records of a .json, .jsonl, .csv or .parquet file, all of them looked at once.

    Raises:
        DataError: with the file, and the row and line where there is one.
    """
    with path.open("rb") as file:
        start = file.read(64)
    for mark, what in _NO_DATA.items():
        if start.lstrip().lower().startswith(mark):
            raise DataError(f"cannot load {path}: it is {what}")
    if path.suffix == ".parquet":
        return _parquet(path)

    def records() -> Iterator[tuple[str, Mapping[str, Any]]]:
        return _csv(path) if path.suffix == ".csv" else _json(path)

    fields, rows = dict.fromkeys(_header(path) if path.suffix == ".csv" else ()), 0
    for _, record in records():
        fields |= dict.fromkeys(record)
        rows += 1
    if not rows:
        raise DataError(f"cannot load {path}: it has no data{' below its header' if fields else ''}")
    return Table(list(fields), rows, records)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with their ends."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8") from None
            yield text


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, the header and blank ones too, each with the line that it ends in."""
    csv.field_size_limit(2**31 - 1)
    # One line of text may hold several of the reader's, where a lone carriage return ends them.
    reader = csv.reader((part for line in _lines(path) for part in line.splitlines(keepends=True)), strict=True)
    begun = 1
    try:
        for row in reader:
            yield reader.line_num, row
            begun = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, the row that begins in line {begun}: {error}; correct its quotes") from None


def _header(path: Path) -> list[str]:
    _, names = next(_rows(path), (0, []))
    if not names:
        raise DataError(f"cannot load {path}: it is empty")
    names = [name.strip() for name in names]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(f"{path}, the header names {', '.join(twice)} more than once; rename or remove one")
    if len(names) == 1 and (mark := next((mark for mark in _SEPARATORS if mark in names[0]), None)):
        raise DataError(
            f"{path}, the header {names[0]!r} has {_SEPARATORS[mark]} where commas belong; save it with commas"
        )
    return names


def _csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All values as text: 033 stays 033, and None is no gap."""
    header = _header(path)
    for number, (line, row) in enumerate(_rows(path)):
        if not number or not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {number} (which ends in line {line}) has {len(row)} fields, and the header names "
                f"{len(header)}: {', '.join(header)}; correct the file"
            )
        yield f"line {line}, row {number}", dict(zip(header, row, strict=True))


def _json(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A list of objects, or an object a line."""
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        for number, record in enumerate(_loads(first + "".join(lines), f"{path}"), 1):
            yield f"row {number}", _object(record, f"{path}, row {number}")
        return
    row = 0
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            row += 1
            where = f"{path}, line {number}, row {row}"
            try:
                record = _loads(line, where)
            except DataError as error:
                if isinstance(error.__context__, json.JSONDecodeError):
                    _check_whole(path, row)
                raise
            yield f"line {number}, row {row}", _object(record, where)


def _check_whole(path: Path, row: int) -> None:
    """Refuse a file that is one object over several lines as what it is."""
    try:
        whole = json.loads("".join(_lines(path))) if row == 1 else None
    except (ValueError, RecursionError):
        return
    if isinstance(whole, dict):
        keys = ", ".join(map(str, whole))
        raise DataError(f"{path} is one object with the keys {keys}, and not a list of records or one a line")


def _loads(text: str, where: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{where}: the field {twice[0]!r} comes more than once")
        return dict(items)

    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}" if "\n" in text.strip() else f"character {error.colno}"
        raise DataError(f"cannot load {where}, {place}: no JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"cannot load {where}: nested too deeply") from None


def _object(record: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{where} is {_kind(record)} and no object with fields")
    return record


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", str: "text", list: "a list"}
    return names.get(type(value), "a number")


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot load {path}: {str(error).splitlines()[0]}") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path} has the column {', '.join(twice)} more than once; rename or remove one")

    def records() -> Iterator[tuple[str, Mapping[str, Any]]]:
        number = 0
        try:
            for batch in pq.ParquetFile(path).iter_batches(_BATCH):
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot load {path}, after row {number}: {str(error).splitlines()[0]}") from None

    if not file.metadata.num_rows:
        raise DataError(f"cannot load {path}: it has no data")
    return Table(names, file.metadata.num_rows, records)

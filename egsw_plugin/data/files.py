"""Records of a local file, read strictly: what is not as it should be is one line with the file, the row and its line.

CSV and JSON are read here and not by pandas and pyarrow, which shift columns, guess types and rewrite values.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_BATCH = 10_000  # records turned into Python objects at a time
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # gzip, zip, bzip2, xz, zstd
_PARQUET = b"PAR1"
_NO_DATA = {
    b"version https://git-lfs": "a Git LFS pointer and not the data: fetch the file itself (git lfs pull)",
    b"<!doctype": "a web page and not the data: download the file itself",
    b"<html": "a web page and not the data: download the file itself",
}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_SHOWN = 12  # fields that an error lists
# What ends a line of CSV; str.splitlines has more, such as U+2028, which are text.
_CSV_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SPACE_AND_QUOTES = re.compile(r'\s+".*"\s*', re.DOTALL)

Records = Iterator[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Table:
    """Records of a file, each with what an error calls it. `records` reads them anew at each call."""

    name: str
    fields: list[str]
    rows: int
    records: Callable[[], Records]


@dataclass(frozen=True)
class _File:
    path: Path
    name: str  # what errors call it; its suffix says what it is

    def __str__(self) -> str:
        return self.name


def read(path: Path, name: str | None = None) -> Table:
    """The records of a .json, .jsonl, .csv or .parquet file, all of them looked at once.

    Args:
        path: of the file.
        name: what it is called in errors, with the suffix that counts: a download may have another path.

    Raises:
        DataError: with the file, and the row and line where there is one.
    """
    file, suffix = _File(path, name or str(path)), Path(name or path).suffix
    with path.open("rb") as opened:
        start = opened.read(64)
    if start.startswith(_COMPRESSED):
        raise DataError(f"cannot load {file}: it is compressed: unpack it first")
    begins = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, what in _NO_DATA.items():
        if begins.startswith(mark):
            raise DataError(f"cannot load {file}: it is {what}")
    if suffix not in SUFFIXES:
        raise DataError(f"{file} is no data file; use {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        return _parquet(file)
    if start.startswith(_PARQUET):
        raise DataError(f"cannot load {file}: it is a parquet file: call it .parquet")

    def records() -> Records:
        return _csv(file) if suffix == ".csv" else _json(file)

    fields, rows = dict.fromkeys(_header(_rows(file), file) if suffix == ".csv" else ()), 0
    for _, record in records():
        fields |= dict.fromkeys(record)
        rows += 1
    if not rows:
        raise DataError(f"cannot load {file}: it has no data{' below its header' if fields else ''}")
    return Table(file.name, list(fields), rows, records)


def listed(fields: Iterable[str]) -> str:
    """Names of fields for an error, cut where they are many."""
    names = [name if len(name) <= 40 else f"{name[:37]}..." for name in fields]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _lines(file: _File) -> Iterator[str]:
    """The lines of a text file, with their ends."""
    try:
        with file.path.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot load {file}: {error.strerror or error}") from None


def _rows(file: _File) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, the header first and without blank ones, each with the line that it ends in."""
    csv.field_size_limit(2**31 - 1)
    # One line of text may hold several of the reader's, where a lone carriage return ends them.
    reader = csv.reader((part for line in _lines(file) for part in _CSV_LINE.findall(line)), strict=True)
    begun = 1
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
            begun = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}, the row that begins in line {begun}: {error}; correct its quotes") from None


def _header(rows: Iterator[tuple[int, list[str]]], file: _File) -> list[str]:
    _, names = next(rows, (0, []))
    if not names:
        raise DataError(f"cannot load {file}: it is empty")
    names = [name.strip() for name in names]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(f"{file}, the header names {listed(twice)} more than once; rename or remove one")
    if len(names) == 1 and (mark := next((mark for mark in _SEPARATORS if mark in names[0]), None)):
        raise DataError(
            f"{file}, the header {names[0]!r} has {_SEPARATORS[mark]} where commas belong; save it with commas"
        )
    return names


def _csv(file: _File) -> Records:
    """All values as text: 033 stays 033, and None is no gap."""
    rows = _rows(file)
    header = _header(rows, file)
    for number, (line, row) in enumerate(rows, 1):
        where = f"{file}, row {number} (which ends in line {line})"
        if len(row) != len(header):
            raise DataError(
                f"{where} has {len(row)} fields, and the header names {len(header)}: {listed(header)}; correct the file"
            )
        if [value.strip("\ufeff \t\r\n") for value in row] == header:
            raise DataError(f"{where} is the header once more; remove it, if this is one file put behind another")
        # A writer of CSV puts a value with a quote into quotes: these belong to the file and not to the value.
        if place := next((name for name, v in zip(header, row, strict=True) if _SPACE_AND_QUOTES.fullmatch(v)), None):
            raise DataError(f"{where}: the field {place!r} has a space before its quotes; remove the space")
        yield f"line {line}, row {number}", dict(zip(header, row, strict=True))


def _json(file: _File) -> Records:
    """A list of objects, an object a line, or one over several lines."""
    first = next((line for line in _lines(file) if line.strip()), "")
    if first.lstrip().startswith("["):
        for number, record in enumerate(_loads("".join(_lines(file)), str(file)), 1):
            yield f"row {number}", _object(record, f"{file}, row {number}")
        return
    row = 0
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            row += 1
            where = f"{file}, line {number}, row {row}"
            try:
                record = _loads(line, where)
            except DataError as error:
                broken = isinstance(error.__context__, json.JSONDecodeError)
                if row > 1 or not broken or (whole := _whole(file)) is None:
                    raise
                yield "row 1", whole
                return
            yield f"line {number}, row {row}", _object(record, where)


def _whole(file: _File) -> Mapping[str, Any] | None:
    """The one object that a file is, over several lines; None if it is no JSON."""
    try:
        return _object(_loads("".join(_lines(file)), str(file)), str(file))
    except DataError as error:
        if isinstance(error.__context__, json.JSONDecodeError):
            return None
        raise


def _loads(text: str, where: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{where}: the field {twice[0]!r} comes more than once")
        return dict(items)

    def whole(digits: str) -> int:
        try:
            return int(digits)
        except ValueError:  # Python's limit of digits
            raise DataError(f"{where} has a number of {len(digits)} digits; write it as text") from None

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_int=whole)
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


def _parquet(file: _File) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file.path)
        names = opened.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot load {file}: {str(error).splitlines()[0]}") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file} has the column {listed(twice)} more than once; rename or remove one")

    def records() -> Records:
        number = 0
        try:
            for batch in pq.ParquetFile(file.path).iter_batches(_BATCH):
                for record in _records(batch, file, number):
                    number += 1
                    yield f"row {number}", record
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot load {file}, after row {number}: {str(error).splitlines()[0]}") from None

    if not opened.metadata.num_rows:
        raise DataError(f"cannot load {file}: it has no data")
    return Table(file.name, names, opened.metadata.num_rows, records)


def _records(batch: Any, file: _File, before: int) -> list[dict[str, Any]]:
    """A batch's rows as Python has them, or an error with the value that it does not have, such as the year 10000."""
    try:
        return batch.to_pylist()
    except Exception:  # of as many kinds as there are types of columns
        for row in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column[row].as_py()
                except Exception as error:
                    words = " ".join(f"{type(error).__name__}: {error}".split())
                    raise DataError(
                        f"cannot load {file}, row {before + row + 1}, column {name!r} ({column.type}): {words}"
                    ) from None
        raise

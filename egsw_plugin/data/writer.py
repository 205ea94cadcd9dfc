"""Writes a data set as one parquet file in verl's schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..writing import replacing
from .files import Table, listed
from .loading import load
from .sources import CONTROL, Example, Source, checked

# The same for every data set: verl concatenates its train files, and its validation files, into one table each.
SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(
            {
                "split": pa.string(),
                "index": pa.int64(),
                "id": pa.string(),
                "subject": pa.string(),
                "level": pa.string(),
            }
        ),
    }
)


def write(source: Source, out: Path, origin: str | None, style: str | None, rows: int | None) -> str:
    """Writes ``out/NAME.parquet``: the same bytes for the same records, options and version of pyarrow.

    A file of that name is replaced at the end and only by a whole one.

    Args:
        source: The data set.
        out: The folder; made if it is not there.
        origin: A hub id or a local file or folder; None for the source's hub id.
        style: One of ``source.styles``; None for the first.
        rows: The number of rows there have to be; None for any number but 0.

    Returns:
        One line that says what was written.

    Raises:
        DataError: The data set cannot be had or is not as expected, or the file cannot be written.
    """
    path = out / f"{source.name}.parquet"
    # opened before the download, which may take minutes, so that a folder that cannot be written to shows at once
    with data_file(path) as file:
        examples, notes = _examples(source, load(source, origin, path))
        if rows is not None and len(examples) != rows:
            raise DataError(f"{len(examples)} rows, not {rows}; for a selection of your own say --rows N or --rows any")
        style = style or next(iter(source.styles))
        table = pa.Table.from_pylist([_row(source, style, *item) for item in enumerate(examples)], SCHEMA)
        pq.write_table(table, file, compression="zstd")
    return f"{source.name}: {len(examples)} rows in {path}, prompt style {style}{notes}"


def _examples(source: Source, tables: list[Table]) -> tuple[list[Example], str]:
    """All examples, repeats dropped where the source has them, and a note on what was dropped."""
    from tqdm import tqdm

    kept: list[Example] = []
    answers: dict[str, str] = {}
    repeated, contradicted = 0, set()
    odd: list[str] = []  # questions with control characters, by their places
    with tqdm(total=sum(table.rows for table in tables), desc=source.name, unit=" rows", disable=None) as bar:
        for table in tables:
            rows = 0
            for where, record in table.records():
                rows += 1
                try:
                    example = checked(source.read(record))
                except DataError as error:
                    raise DataError(f"{table.name}, {where}: {error}") from error
                except Exception as error:  # of a form that the reader did not think of
                    what = f"{type(error).__name__}: {error}"
                    raise DataError(
                        f"{table.name}, {where}: cannot be read ({what}); its fields are {listed(record)}"
                    ) from error
                bar.update()
                if any(CONTROL.search(text) for text in example.asked):
                    odd.append(f"{table.name}, {where}")
                if source.repeats and example.published:
                    key = example.published[0]["content"]
                    if key in answers:
                        repeated += 1
                        if answers[key] != example.answer:
                            contradicted.add(key)
                        continue
                    answers[key] = example.answer
                kept.append(example)
            if rows != table.rows:
                raise DataError(f"{table.name} had {table.rows} rows at first, and then {rows}: it changed meanwhile")
    notes = f", {repeated} repeats dropped" if repeated else ""
    if contradicted:
        notes += f" ({len(contradicted)} questions had several answers; the first was kept)"
    if odd:
        notes += f"; control characters in the text of {len(odd)} questions, first in {odd[0]}: undoubled backslashes?"
    return kept, notes


def _row(source: Source, style: str, index: int, example: Example) -> dict:
    if style == source.published_style:
        prompt = example.published
    elif example.question is None:
        raise DataError(f"kept row {index + 1}: no bare question in its prompt; use --prompt {source.published_style}")
    else:
        prompt = source.styles[style].messages(example.question)
    return {
        "data_source": source.data_source,
        "prompt": prompt,
        "ability": source.ability,
        "reward_model": {"style": "rule", "ground_truth": example.answer},
        "extra_info": {
            "split": source.split,
            "index": index,
            "id": example.id,
            "subject": example.subject,
            "level": example.level,
        },
    }


@contextmanager
def data_file(path: Path) -> Iterator[BinaryIO]:
    """`replacing`, with `DataError` for what cannot be written."""
    try:
        if path.parent.exists() and not path.parent.is_dir():
            raise DataError(f"{path.parent} is not a folder")
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error

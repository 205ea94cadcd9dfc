"""Loads a source's records with ``datasets``: from the hub, or from a local file or folder."""

import csv
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .sources import Source

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def load(source: Source, origin: str | None = None) -> list["Dataset"]:
    """The tables of a data set, one a configuration, with its fields checked.

    Args:
        source: The data set.
        origin: A hub id, or a local folder or file (.json, .jsonl, .csv, .parquet); by default the source's hub id.

    Returns:
        The tables, in the order of ``source.configs``.

    Raises:
        DataError: It cannot be had, is not a data set, or lacks a split, a configuration or a field.
    """
    origin = source.hub if origin is None else origin
    path = Path(origin).expanduser()
    known = path.exists()
    if known and path.is_file() and path.suffix not in _BUILDERS:
        raise DataError(f"{origin} is no data file; use {', '.join(_BUILDERS)}")
    if not known and (path.suffix in _BUILDERS or not _HUB_ID.fullmatch(origin)):
        raise DataError(f"there is no file or folder {origin}, and it is no hub id (owner/name)")
    with _quiet():
        try:
            where = str(path.resolve()) if known else origin
            tables = _file(path) if path.is_file() else _repository(source, origin, where)
        except DataError:
            raise
        except Exception as error:  # datasets, huggingface_hub, httpx, pyarrow and pandas each have their own
            raise DataError(_reason(error, origin, known)) from error
    for table in tables:
        _check_fields(source, origin, table.column_names)
    return tables


def _file(path: Path) -> list["Dataset"]:
    from datasets import Features, Value, load_dataset

    settings = {}
    if path.suffix == ".csv":
        import pandas as pd

        # all columns as text: pandas would turn the answer "033" into 33, "1.50" into 1.5 and "None" into a gap
        _check_rows(path)
        columns = pd.read_csv(path, nrows=0).columns
        settings = {"features": Features({name: Value("string") for name in columns}), "keep_default_na": False}
    return [load_dataset(_BUILDERS[path.suffix], data_files=str(path), split="train", **settings)]


def _check_rows(path: Path) -> None:
    """Refuse a row with another number of fields than the header names: pandas would shift or fill the columns."""
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        for number, row in enumerate(rows, 1):
            if row and len(row) != len(header):
                where = f"{path.name}, row {number} (which ends in line {rows.line_num})"
                raise DataError(
                    f"{where} has {len(row)} fields, and the header names {len(header)}: {', '.join(header)}; correct "
                    "the file"
                )


def _repository(source: Source, origin: str, where: str) -> list["Dataset"]:
    """From the hub or a folder; ``datasets`` looks for configurations and splits in both in the same way."""
    from datasets import get_dataset_config_names, load_dataset

    available = get_dataset_config_names(where)
    alternatives = [*source.configs, *([tuple(available)] if len(available) == 1 else [])]
    configs = next((group for group in alternatives if set(group) <= set(available)), None)
    if configs is None:
        wanted = " or ".join(", ".join(group) for group in source.configs)
        raise DataError(f"{origin} has the configurations {', '.join(available)}; expected {wanted}")
    tables = []
    for config in configs:
        splits = load_dataset(where, config)
        split = next((split for split in source.splits if split in splits), None)
        if split is None:
            raise DataError(f"{origin} has the splits {', '.join(splits)}; expected {' or '.join(source.splits)}")
        tables.append(splits[split])
    return tables


def _check_fields(source: Source, origin: str, fields: list[str]) -> None:
    missing = [" or ".join(group) for group in source.fields if not set(group) & set(fields)]
    if missing:
        raise DataError(f"{origin} has no field {', '.join(missing)}; it has {', '.join(fields)}")


def _reason(error: Exception, origin: str, local: bool) -> str:
    from huggingface_hub.errors import GatedRepoError

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    # datasets hides the cause in some places and keeps it in others
    if any(isinstance(link, GatedRepoError) or "gated dataset" in str(link) for link in chain):
        return (
            f"{origin} is gated: accept its terms at https://huggingface.co/datasets/{origin}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        )
    if not local and any(isinstance(link, ConnectionError | TimeoutError) for link in chain):
        return f"cannot reach the hub for {origin}; check the network, or give --source a local file or folder"
    words = str(error.__cause__ or error) or type(error).__name__  # datasets' own words say only that it failed
    return f"cannot load {origin}: {words.strip().splitlines()[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' log lines for what is reported here in one line, and without bars where nobody looks."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    levels = [(log, log.get_verbosity()) for log in (datasets.logging, hub_logging)]
    for log, _ in levels:
        log.set_verbosity(log.CRITICAL)
    hide_bars = datasets.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hide_bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)
        if hide_bars:
            datasets.enable_progress_bars()
